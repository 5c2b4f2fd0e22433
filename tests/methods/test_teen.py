"""`teen`: calibrated prototypes against the paper's formulas, and the choice of its parameters."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.base import Centroid, Context, Outcome, Rows, Snapshot, Split, Unfit
from app.methods.incremental import ncm
from app.methods.incremental.teen import METHOD, TeenParams
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts import calibration, calibration_choice
from app.methods.parts.grid import quantise
from app.methods.parts.scoring import Scorer
from app.methods.parts.slicing import slice_bits
from tests.methods.conftest import rows_of

WIDTH = 24
BASE = tuple("abcdefghij")
FEW = ("A", "c2", "z")


def clusters(names: tuple[str, ...], each: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Noisy classes around centres that share a subspace, so that new ones resemble some base classes."""
    shared = np.random.default_rng(0).standard_normal((4, WIDTH))
    x, labels = [], []
    for name in names:
        of_class = np.random.default_rng(list(name.encode()))
        centre = of_class.standard_normal(4) @ shared + 0.3 * of_class.standard_normal(WIDTH)
        noise = np.random.default_rng([seed, *name.encode()])
        x.append(centre + 1.5 * noise.standard_normal((each, WIDTH)))
        labels += [name] * each
    return quantise(np.concatenate(x), "normalised")[0], labels


def a_version(base: int = 40) -> Snapshot:
    empty = Snapshot(InputSpec(kind="vector", shape=(WIDTH,)), "normalised", NetworkSpec(name="identity"))
    data = {Split.NEW: rows_of(*clusters(BASE, base, seed=1))}
    return ncm.METHOD.run(empty, data, ncm.NcmParams(), Context()).after


def run(before: Snapshot, rows: Rows, select: Rows | None = None, **params: object) -> Outcome:
    data = {Split.NEW: rows} | ({Split.SELECT: select} if select else {})
    return METHOD.run(before, data, TeenParams.model_validate(params), Context())


def few_rows(shots: int = 5) -> Rows:
    return rows_of(*clusters(FEW, shots, seed=2))


def by_hand(version: Snapshot, tau: float, alpha: float) -> np.ndarray:
    """Steps 2 to 5 of the paper, in float64."""
    unit = {n: c.mean() / np.linalg.norm(c.mean()) for n, c in version.centroids.items()}
    base = np.stack([unit[name] for name in BASE])
    rows = []
    for name in version.classes:
        p = unit[name]
        if name not in BASE:
            w = np.exp(tau * base @ p)
            d = w / w.sum() @ base
            p = (1 - alpha) * p + alpha * d / np.linalg.norm(d)
        rows.append(p / np.linalg.norm(p))
    return np.stack(rows)


@pytest.mark.parametrize(("tau", "alpha"), [(16.0, 0.5), (0.0, 1.0), (256.0, 0.1), (3.7, 0.0)])
def test_is_the_calibration_of_the_paper(tau, alpha):
    after = run(a_version(), few_rows(), tau=tau, alpha=alpha).after
    assert after.head is not None

    expected = by_hand(after, tau, alpha)

    assert after.head.weight.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert after.head.normalise
    assert not after.head.bias.any()


def test_is_nearest_mean_without_calibration():
    after = run(a_version(), few_rows(), alpha=0).after
    plain = ncm.METHOD.run(a_version(), {Split.NEW: few_rows()}, ncm.NcmParams(), Context()).after
    assert after.head is not None
    assert plain.head is not None

    assert after.head.weight.numpy() == pytest.approx(plain.head.weight.numpy(), rel=2e-7, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_does_not_see_order_or_sessions(seed):
    x, labels = clusters(FEW, 6, seed=3)
    order = np.random.default_rng(seed).permutation(len(x))
    names = [labels[i] for i in order]
    joint = run(a_version(), rows_of(x, labels)).after

    version = a_version()
    for part in np.array_split(np.arange(len(x)), 3):
        version = run(version, rows_of(x[order][part], [names[i] for i in part])).after

    assert joint.head is not None
    assert version.head is not None
    assert version.head.digest(version.classes) == joint.head.digest(joint.classes)


def test_a_class_stands_on_its_own_mean_once_it_has_rows_enough():
    few = run(a_version(), few_rows(5)).after
    grown = run(few, rows_of(*clusters(FEW, 25, seed=4)))
    assert grown.after.head is not None

    assert grown.report["calibrated"] == {}
    means = [c.mean() for _, c in sorted(grown.after.centroids.items(), key=lambda item: item[0].encode())]
    expected = np.stack([m / np.linalg.norm(m) for m in means])
    assert grown.after.head.weight.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_says_which_base_classes_a_few_shot_class_was_drawn_to():
    outcome = run(a_version(), few_rows())

    assert set(outcome.report["calibrated"]) == set(FEW)
    for share in outcome.report["calibrated"].values():
        assert len(share) == 5
        assert list(share.values()) == sorted(share.values(), reverse=True)
        assert set(share) < set(BASE)


def test_calibrates_nothing_where_every_class_is_few_shot():
    outcome = run(a_version(base=10), few_rows())

    assert outcome.report["calibrated"] == {}


def test_finds_more_of_the_few_shot_classes_than_nearest_mean():
    x, labels = clusters(FEW, 300, seed=9)
    found = {}
    for alpha in (0.0, 0.5):
        after = run(a_version(), few_rows(1), alpha=alpha).after
        assert after.head is not None
        guess = np.array(after.classes)[Scorer(after.head, after.grid)(x).argmax(axis=1)]
        found[alpha] = (guess == np.array(labels)).mean()

    assert found[0.5] > found[0.0]


def test_takes_rows_of_zeros_as_classes_without_direction():
    x, labels = clusters(FEW, 5, seed=2)
    x = x.copy()
    x[:5] = 0  # all of "A"
    after = run(a_version(), rows_of(x, labels), alpha=0.25).after
    assert after.head is not None

    assert np.isfinite(after.head.weight.numpy()).all()


def test_has_no_weights_for_a_dead_feature():
    x, labels = clusters((*BASE, *FEW), 40, seed=2)
    x = x.copy()
    x[:, 7] = 0
    keep = np.array([name in BASE or i % 40 < 5 for i, name in enumerate(labels)])
    empty = replace(a_version(), classes=(), centroids={}, head=None)
    after = run(empty, rows_of(x[keep], [n for n, use in zip(labels, keep, strict=True) if use])).after
    assert after.head is not None

    assert not after.head.weight[:, 7].any()
    assert after.head.weight[:, 6].all()


def test_chooses_what_serves_hidden_base_classes():
    select = rows_of(*clusters(BASE, 30, seed=7))
    outcome = run(a_version(), few_rows(), select, choose=True)

    tried = {}
    for alpha, tau in calibration_choice.PAIRS[::7]:
        tried[alpha, tau] = hidden_score(a_version(), *clusters(BASE, 30, seed=7), tau, alpha)
    assert outcome.report["score"] >= max(tried.values()) - 1e-9
    chosen = outcome.report["tau"], outcome.report["alpha"]
    assert outcome.report["score"] == pytest.approx(
        hidden_score(a_version(), *clusters(BASE, 30, seed=7), *chosen)
    )
    assert outcome.report["without"] == pytest.approx(
        hidden_score(a_version(), *clusters(BASE, 30, seed=7), 1.0, 0.0)
    )
    fixed = run(a_version(), few_rows(), tau=chosen[0], alpha=chosen[1]).after
    assert fixed.head is not None
    assert outcome.after.head is not None
    assert fixed.head.weight.equal(outcome.after.head.weight)


def hidden_score(version: Snapshot, x: np.ndarray, labels: list[str], tau: float, alpha: float) -> float:
    """Each fifth base class hidden in turn; five rows make its prototype, the others are judged."""
    names, z = np.array(labels), x.astype(np.float64)
    rank = np.array([sum(names[:i] == names[i]) for i in range(len(names))])
    turns = []
    for first in range(5):
        hidden = BASE[first::5]
        kept = [n for n in BASE if n not in hidden]
        unit = {n: version.centroids[n].mean() / np.linalg.norm(version.centroids[n].mean()) for n in kept}
        anchors = np.stack([unit[n] for n in kept])
        for name in hidden:
            p = z[(names == name) & (rank < 5)].sum(axis=0)
            p /= np.linalg.norm(p)
            w = np.exp(tau * anchors @ p)
            d = w / w.sum() @ anchors
            p = (1 - alpha) * p + alpha * d / np.linalg.norm(d)
            unit[name] = p / np.linalg.norm(p)
        judged = rank >= 5
        guess = np.array(list(unit))[(z[judged] @ np.stack(list(unit.values())).T).argmax(axis=1)]
        right, is_hidden = guess == names[judged], np.isin(names[judged], hidden)
        a, b = right[is_hidden].mean(), right[~is_hidden].mean()
        turns.append(2 * a * b / (a + b) if a + b else 0.0)
    return float(np.mean(turns))


def test_refuses_to_choose_without_rows_to_choose_on():
    with pytest.raises(Unfit, match="evaluation data set") as error:
        run(a_version(), few_rows(), choose=True)
    assert error.value.field == "/evaluation"
    with pytest.raises(Unfit, match="more than 5 rows") as error:
        run(a_version(), few_rows(), rows_of(*clusters(BASE, 5, seed=7)), choose=True)
    assert error.value.field == "/evaluation"


def test_of_classes_that_score_alike_the_first_by_key_is_found():
    axes = {"a": 0, "b": 0, "c": 1, "d": 2, "e": 3}  # a and b are the same
    x = np.repeat(np.eye(4, dtype=np.int16)[list(axes.values())] * 8192, 10, axis=0)
    labels = [name for name in axes for _ in range(10)]
    rows = rows_of(x, labels)
    centroids = {name: Centroid(np.eye(4, dtype=np.int64)[axis] * 8192, 50) for name, axis in axes.items()}

    found = calibration_choice.choose(rows, centroids, tuple(axes))

    # "a" takes every row of "b": three of four kept classes are found, and "b" never where it is hidden.
    assert found.without == pytest.approx((4 * 6 / 7 + 0) / 5)


def test_directions_are_unit_vectors_on_their_grid():
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (50, 300))
    x[3] = 0
    bits = slice_bits(300)

    found = calibration_choice.directions(x, bits)

    length = np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    expected = np.divide(x, length, out=np.zeros(x.shape), where=length > 0)
    assert np.abs(found / 2 ** (bits - 1) - expected).max() < 2.0 ** (1 - bits)
    assert np.abs(found @ found.T).max() < 2**51


def no_block() -> Iterator[np.ndarray]:
    raise AssertionError("it read a row")


@pytest.mark.parametrize(
    ("chosen", "field"), [(True, "/method/params/choose"), (False, "/method/name")], ids=["choose", "given"]
)
def test_refuses_more_classes_than_fit_before_any_work(chosen, field):
    rows = replace(few_rows(), blocks=no_block)
    params, ctx = TeenParams(choose=chosen), Context(memory=2**20)

    with pytest.raises(Unfit, match=r"13 classes of 24 features needs 0\.0 GiB") as error:
        METHOD.run(a_version(), {Split.NEW: rows, Split.SELECT: rows}, params, ctx)

    assert error.value.field == field


def test_takes_no_more_memory_than_it_says():
    names, width = tuple(f"{i:04}" for i in range(500)), 400
    rng = np.random.default_rng(0)
    centroids = {
        name: Centroid(rng.integers(-(2**20), 2**20, width), 50 if i < 450 else 3)
        for i, name in enumerate(names)
    }
    base = calibration.base_of(centroids, 30)
    x = rng.integers(-3000, 3000, (3000, width)).astype(np.int16)
    rows = Rows(names, np.arange(3000) % 500, lambda: (x[i : i + 500] for i in range(0, 3000, 500)))

    choosing = peak_of(lambda: calibration_choice.choose(rows, centroids, base))
    making = peak_of(lambda: calibration.calibrated_head(centroids, base, Fraction(16), Fraction(1, 2)))

    assert calibration_choice.memory(width, 500) / 4 < choosing < calibration_choice.memory(width, 500)
    assert calibration.memory(width, 500) / 4 < making < calibration.memory(width, 500)


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def to_sixty_digits(
    centroids: dict[str, Centroid], base: tuple[str, ...], tau: float, alpha: float
) -> dict[str, list[Decimal]]:
    """The paper's formulas in decimal arithmetic."""
    unit = {name: of_length_one([Decimal(int(v)) for v in c.sum]) for name, c in centroids.items()}
    found = {}
    for name, own in unit.items():
        if name not in base:
            heat, share = Decimal(repr(tau)), Decimal(repr(alpha))
            powers = [(heat * sum(a * b for a, b in zip(own, unit[key], strict=True))).exp() for key in base]
            drawn = of_length_one(
                [
                    sum((p * unit[key][i] for p, key in zip(powers, base, strict=True)), Decimal(0))
                    for i in range(len(own))
                ]
            )
            own = of_length_one([(1 - share) * a + share * b for a, b in zip(own, drawn, strict=True)])
        found[name] = own
    return found


def of_length_one(values: Sequence[Decimal]) -> list[Decimal]:
    length = Decimal(sum(v * v for v in values)).sqrt()
    return [v / length for v in values]


def nearest_float32(value: Decimal) -> float:
    guess = np.float32(float(value))
    around = (np.nextafter(guess, np.float32(-2)), guess, np.nextafter(guess, np.float32(2)))
    return min(map(float, around), key=lambda x: abs(Decimal(x) - value))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 256), st.floats(0, 1))
def test_every_entry_is_its_value_to_sixty_digits_rounded_once(seed, tau, alpha):
    rng = np.random.default_rng(seed)
    centroids = {
        name: Centroid(rng.integers(-(2**30), 2**30, 9), 50 if name in "abc" else 3) for name in "abcxy"
    }
    base = calibration.base_of(centroids, 30)

    head, weights = calibration.calibrated_head(centroids, base, Fraction(repr(tau)), Fraction(repr(alpha)))

    assert base == ("a", "b", "c")
    assert all(sum(share.values()) == pytest.approx(1) for share in weights.values())
    with localcontext(prec=60):
        exact = to_sixty_digits(centroids, base, tau, alpha)
        expected = [[nearest_float32(value) for value in exact[name]] for name in "abcxy"]
    assert head.weight.tolist() == expected
