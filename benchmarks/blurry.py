"""Streams without task boundaries: `python -m benchmarks.blurry --data DIR`.

*si-blurry* (Moon et al., "Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and
Visual Prompt Tuning", ICCV 2023): half of the classes come in one task each, the others in several, for a
tenth of their rows is dealt out among all tasks; classes and borders are drawn at random. *long tail*: the
same with class sizes that fall from the largest to a hundredth of it. Rows come in batches of equal size;
after each every head is judged on the test rows of all classes met so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Method, Params, Snapshot
from app.methods.incremental import analytic, ncm
from benchmarks.candidates import digests, learn, model, rows_of
from benchmarks.common import Row, mean_and_deviation
from benchmarks.recursion import Recursion, grid_rows, last_ridge
from benchmarks.sequence import on_grid, predict
from benchmarks.sets import Labels, Set
from benchmarks.suite import Found, Given, main

TASKS, DISJOINT, BLURRY = 5, 0.5, 0.1
BATCHES = 20
STREAMS = range(3)
WIDTH = 2_048
TAIL = 100  # the largest class over the smallest
NAMES = ("analytic", "analytic, classes weighed", "recursion", "ncm")
Learn = Callable[[Labels], None]
Predict = Callable[[NDArray[np.generic]], Labels]


def si_blurry(given: Given) -> Found:
    return streams(given.data)


def long_tail(given: Given) -> Found:
    return streams(thinned(given.data))


def streams(data: Set) -> Found:
    """Every head on every stream; its last version has the digests of the rows in another order,
    or the run fails.
    """
    runs: dict[str, list[Row]] = {name: [] for name in NAMES}
    for seed in STREAMS:
        order = np.array_split(stream(data.y_train, seed), BATCHES)
        heads = models(data)
        for name, head in heads.items():
            runs[name].append(anytime(data, order, *head.functions(data)))
            print(f"{data.name}: {name}, stream {seed} done", flush=True)
        every = np.random.default_rng(seed).permutation(len(data.y_train))
        for name, head in heads.items():
            if isinstance(head, Ours) and not head.equals(data, every):
                raise SystemExit(f"{name}: the order of the rows changed the digest")
    return Found([summary(name, lines) for name, lines in runs.items()])


class Ours:
    """A head of the service, which learns positions of training rows."""

    def __init__(self, version: Snapshot, method: Method[Any], params: Params) -> None:
        self.empty = self.version = version
        self.method, self.params = method, params

    def functions(self, data: Set) -> tuple[Learn, Predict]:
        def take(chosen: Labels) -> None:
            self.version = learn(self.version, rows_of(data, chosen, self.version), self.method, self.params)

        return take, lambda x: predict(self.version, on_grid(x, self.version))

    def equals(self, data: Set, chosen: Labels) -> bool:
        """Whether all rows at once, in this order, give the same bytes."""
        whole = learn(self.empty, rows_of(data, chosen, self.empty), self.method, self.params)
        return digests(whole) == digests(self.version)


class Theirs:
    """The recursion on the same expansion, with the ridge that ours ends with."""

    def __init__(self, version: Snapshot, data: Set) -> None:
        self.version, self.state = version, Recursion(WIDTH, last_ridge(data, version))

    def functions(self, data: Set) -> tuple[Learn, Predict]:
        def take(chosen: Labels) -> None:
            self.state.learn(grid_rows(data.x_train[chosen], self.version), data.y_train[chosen])

        return take, lambda x: self.state.predict(grid_rows(x, self.version))


def models(data: Set) -> Mapping[str, Ours | Theirs]:
    wide = model(data, WIDTH)
    return {
        "analytic": Ours(wide, analytic.METHOD, analytic.AnalyticParams()),
        "analytic, classes weighed": Ours(wide, analytic.METHOD, analytic.AnalyticParams(weights="classes")),
        "recursion": Theirs(wide, data),
        "ncm": Ours(model(data), ncm.METHOD, ncm.NcmParams()),
    }


def anytime(data: Set, order: list[Labels], take: Learn, guess: Predict) -> Row:
    """Area under accuracy over the rows seen, its mean at the ends of tasks, and at the end."""
    accuracy = []
    for batch, chosen in enumerate(order):
        take(chosen)
        seen = np.unique(data.y_train[np.concatenate(order[: batch + 1])])
        judged = np.isin(data.y_test, seen)
        accuracy.append(float((guess(data.x_test[judged]) == data.y_test[judged]).mean()))
    ends = accuracy[len(order) // TASKS - 1 :: len(order) // TASKS]
    return {"area": float(np.mean(accuracy)), "average": float(np.mean(ends)), "last": accuracy[-1]}


def stream(labels: Labels, seed: int) -> Labels:
    """Positions of all rows in the order in which they come."""
    source = np.random.default_rng(seed)
    classes = source.permutation(np.unique(labels))
    half = round(len(classes) * DISJOINT)
    task = np.empty(labels.max() + 1, np.int64)
    for part in (classes[:half], classes[half:]):
        borders = np.sort(source.integers(0, len(part) + 1, TASKS - 1))
        for number, group in enumerate(np.split(part, borders)):
            task[group] = number
    place = task[labels]
    loose = np.flatnonzero(np.isin(labels, classes[half:]))
    moved = source.choice(loose, round(len(loose) * BLURRY), replace=False)
    place[moved] = source.permutation(place[moved])
    mixed = source.permutation(len(labels))
    found: Labels = mixed[np.argsort(place[mixed], kind="stable")]
    return found


def thinned(data: Set, seed: int = 0) -> Set:
    """Class sizes fall geometrically to a hundredth of the largest (one row at least); tests stay even."""
    source = np.random.default_rng(seed)
    classes = source.permutation(data.classes)
    most = int(np.bincount(data.y_train).min())
    kept = []
    for rank, c in enumerate(classes):
        count = max(1, round(most * TAIL ** (-rank / max(1, len(classes) - 1))))
        kept.append(source.choice(np.flatnonzero(data.y_train == c), count, replace=False))
    chosen = np.sort(np.concatenate(kept))
    return Set(data.name, data.x_train[chosen], data.y_train[chosen], data.x_test, data.y_test)


def summary(name: str, runs: list[Row]) -> Row:
    line: Row = {"method": name, "streams": len(runs)}
    for figure in ("area", "average", "last"):
        line[figure], line[f"{figure}_sd"] = mean_and_deviation([run[figure] for run in runs])
    return line


if __name__ == "__main__":
    main("blurry", __doc__, {"long tail": long_tail, "si-blurry": si_blurry})
