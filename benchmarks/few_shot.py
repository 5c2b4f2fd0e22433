"""Few rows per new class: `python -m benchmarks.few_shot --data DIR`.

60 base classes with all their rows, then five classes per session with 1, 5 or 10 rows each, until all are
known; 30 draws of classes and rows. `teen` with its defaults and with both parameters chosen on held-out rows
of base classes; `ncm`, and `ncm` with one bias for all new classes, chosen in the same way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Rows, Snapshot
from app.methods.incremental import ncm, teen
from app.methods.parts.calibration_choice import TURNS
from app.methods.parts.scoring import scorer_of
from benchmarks.candidates import learn, model, rows_of
from benchmarks.common import Row, above, paired
from benchmarks.sequence import key, on_grid
from benchmarks.sets import Labels, Set
from benchmarks.suite import Found, Given, main

BASE, WAYS = 60, 5
SHOTS = (1, 5, 10)
BAR_SHOTS = 5
DRAWS = 30
BIASES = np.arange(-0.1, 0.31, 0.01)  # on cosines
NAMES = ("ncm", "ncm with a bias", "teen", "teen, chosen")
Scores = NDArray[np.float64]
Judged = NDArray[np.float64]  # (sessions, 3): accuracy on base, on new classes, their harmonic mean


def sessions(given: Given) -> Found:
    """Means over the draws; the bar is on the mean over sessions of the harmonic mean."""
    found = Found()
    for shots in SHOTS:
        draws = [draw(given, shots, seed) for seed in range(DRAWS)]
        found.rows += lines({name: np.stack([each[name] for each in draws]) for name in NAMES}, shots)
        found.rows += differences(draws, shots)
        print(f"{given.data.name}: {shots} shots done", flush=True)
    for row in found.rows:
        if row.get("method") == "teen - ncm" and row["shots"] == BAR_SHOTS:
            words = f"teen above ncm at {BAR_SHOTS} shots, harmonic mean, points, low end of 95 %"
            found.bars.append(above(words, row["low"], 0.0))
    return found


def draw(given: Given, shots: int, seed: int) -> dict[str, Judged]:
    """One order of the classes, one choice of rows: every session by every method."""
    data = rows_to_learn(given)
    order = np.random.default_rng(seed).permutation(data.classes)
    base, new = order[: base_size(data)], order[base_size(data) :]
    few = few_rows(data, new, shots, seed)
    first = learn(model(data), rows_of(data, positions(data, base), model(data)), ncm.METHOD, ncm.NcmParams())
    rows = rows_of(data, few, first)
    plain = learn(first, rows, ncm.METHOD, ncm.NcmParams())
    select = held_out_rows(given.choose, base, first)
    bias = choose_bias(given.choose, base, first, shots)
    scores = {
        "ncm": scores_of(plain, data),
        "teen": scores_of(learn(first, rows, teen.METHOD, teen.TeenParams()), data),
        "teen, chosen": scores_of(
            learn(first, rows, teen.METHOD, teen.TeenParams(choose=True), select), data
        ),
    }
    raised = scores["ncm"].copy()
    raised[:, new] += bias
    scores["ncm with a bias"] = raised
    return {name: judged(table, data, base, new) for name, table in scores.items()}


def rows_to_learn(given: Given) -> Set:
    """Where there are no validation rows, those that choices are made on are kept out of learning."""
    data, choose = given.data, given.choose
    return Set(data.name, choose.x_train, choose.y_train, data.x_test, data.y_test)


def base_size(data: Set) -> int:
    """60, or half of what a small set has."""
    return min(BASE, data.classes // 2)


def positions(data: Set, classes: Labels) -> Labels:
    return np.flatnonzero(np.isin(data.y_train, classes))


def few_rows(data: Set, new: Labels, shots: int, seed: int) -> Labels:
    """`shots` training rows of each new class."""
    source = np.random.default_rng([seed, shots])
    return np.concatenate(
        [source.choice(np.flatnonzero(data.y_train == c), shots, replace=False) for c in new]
    )


def scores_of(version: Snapshot, data: Set) -> Scores:
    """(test rows, classes); columns are class numbers, for label keys stand in their order."""
    return scorer_of(version)(on_grid(data.x_test, version)).astype(np.float64)


def judged(scores: Scores, data: Set, base: Labels, new: Labels) -> Judged:
    """Session by session. The row of a class in either head does not depend on the other new classes, so a
    session is the last head without the classes that come later."""
    found = []
    for known in range(WAYS, len(new) + 1, WAYS):
        classes = np.sort(np.concatenate([base, new[:known]]))
        right = classes[scores[:, classes].argmax(axis=1)] == data.y_test
        old, few = (float(right[np.isin(data.y_test, part)].mean()) for part in (base, new[:known]))
        found.append((old, few, harmonic(old, few)))
    return np.array(found)


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def held_out_rows(data: Set, base: Labels, version: Snapshot) -> Rows:
    chosen = np.isin(data.y_test, base)
    names, numbers = np.unique(data.y_test[chosen], return_inverse=True)
    x = on_grid(data.x_test[chosen], version)
    return Rows(tuple(map(key, names)), numbers, lambda: iter([x]))


def choose_bias(data: Set, base: Labels, first: Snapshot, shots: int) -> float:
    """The bias for new classes that does best on held-out rows, where every fifth base class plays new."""
    chosen = np.isin(data.y_test, base)
    x, y = unit_rows(on_grid(data.x_test[chosen], first).astype(np.float64)), data.y_test[chosen]
    classes = np.sort(base)
    means = unit_rows(np.stack([first.centroids[key(c)].mean() for c in classes]))
    total = np.zeros(len(BIASES))
    for turn in range(min(TURNS, len(classes) - 1)):
        hidden = classes[turn::TURNS]
        support = np.concatenate([np.flatnonzero(y == c)[:shots] for c in hidden])
        few = np.stack([x[support][y[support] == c].mean(axis=0) for c in hidden])
        prototypes = means.copy()
        prototypes[turn::TURNS] = unit_rows(few)
        rest = np.setdiff1d(np.arange(len(y)), support)
        scores, is_new = x[rest] @ prototypes.T, np.isin(y[rest], hidden)
        for i, bias in enumerate(BIASES):
            raised = scores.copy()
            raised[:, turn::TURNS] += bias
            right = classes[raised.argmax(axis=1)] == y[rest]
            total[i] += harmonic(float(right[~is_new].mean()), float(right[is_new].mean()))
    return float(BIASES[total.argmax()])


def unit_rows(x: Scores) -> Scores:
    """Rows at length one; zeros stay zeros."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    units: Scores = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    return units


def lines(judged: dict[str, Judged], shots: int) -> list[Row]:
    """Every session: means over the draws, and the standard deviation of the harmonic mean."""
    return [
        {
            "table": "sessions",
            "method": name,
            "shots": shots,
            "session": session + 1,
            "base": float(runs[:, session, 0].mean()),
            "new": float(runs[:, session, 1].mean()),
            "harmonic": float(runs[:, session, 2].mean()),
            "harmonic_sd": float(runs[:, session, 2].std(ddof=1)),
        }
        for name, runs in judged.items()
        for session in range(runs.shape[1])
    ]


def differences(draws: list[dict[str, Judged]], shots: int) -> list[Row]:
    """Paired over the draws: harmonic means averaged over the sessions, in points."""
    mean = {name: [100 * float(each[name][:, 2].mean()) for each in draws] for name in NAMES}
    pairs = (
        ("teen", "ncm"),
        ("teen, chosen", "ncm"),
        ("ncm with a bias", "ncm"),
        ("teen", "ncm with a bias"),
        ("teen, chosen", "ncm with a bias"),
    )
    return [
        {"table": "differences", "method": f"{a} - {b}", "shots": shots, **paired(mean[a], mean[b])}
        for a, b in pairs
    ]


if __name__ == "__main__":
    main("few_shot", __doc__, {"sessions": sessions})
