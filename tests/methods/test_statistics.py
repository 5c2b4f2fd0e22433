"""The statistics store against Python integers: any order, the same bytes; merge and subtract are exact."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.parts import statistics as exact
from app.methods.parts.expansion import Expansion
from app.methods.parts.model_settings import TargetGrid
from app.methods.parts.statistics import (
    NotContained,
    NotTogether,
    Statistics,
    TooLarge,
    accumulate,
    empty,
    from_arrays,
)
from app.methods.parts.targets import LIMIT, OffGrid, on_grid

KEYS = ("a", "b", "z", "ä")  # in the order of their bytes


def a_problem(seed: int, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-32_767, 32_768, (rows, width)).astype(np.int16), rng.integers(0, len(KEYS), rows)


def summed(x: np.ndarray, y: np.ndarray, block: int = 7, targets: np.ndarray | None = None) -> Statistics:
    blocks = (x[i : i + block] for i in range(0, len(x), block))
    return accumulate(KEYS, y, blocks, x.shape[1], targets=targets)


def by_hand(x: np.ndarray, y: np.ndarray) -> dict[str, object]:
    rows = [[int(v) for v in row] for row in x]
    width = x.shape[1]
    there = [c for c in range(len(KEYS)) if c in y]
    of = {c: [row for row, label in zip(rows, y, strict=True) if label == c] for c in there}
    return {
        "counts": [len(of[c]) for c in there],
        "sums": [[sum(row[j] for row in of[c]) for j in range(width)] for c in there],
        "squares": [[sum(row[j] ** 2 for row in of[c]) for j in range(width)] for c in there],
        "gram": [sum(row[i] * row[j] for row in rows) for i in range(width) for j in range(i, width)],
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 9))
def test_is_the_sums_that_integers_give(seed, rows, width):
    x, y = a_problem(seed, rows, width)

    found = summed(x, y)

    assert {name: array.tolist() for name, array in found.arrays().items() if name != "classes"} == by_hand(
        x, y
    )
    assert found.classes == tuple(key for c, key in enumerate(KEYS) if c in y)
    assert found.diagonal().tolist() == (x.astype(np.int64) ** 2).sum(axis=0).tolist()
    full = x.astype(np.int64).T @ x.astype(np.int64)
    assert found.full_gram().tolist() == full.tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 30),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_has_the_same_bytes_in_any_batches_and_order(seed, rows, block, cuts):
    x, y = a_problem(seed, rows, 5)
    order = np.random.default_rng(seed).permutation(rows)
    parts = np.split(order, sorted(min(cut, rows) for cut in cuts))

    joint, merged = summed(x, y), empty(5)
    for part in parts:
        merged = merged.merge(summed(x[part], y[part], block))

    assert merged.digest() == joint.digest()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 40))
def test_without_some_rows_it_is_as_if_they_had_never_come(seed, rows, gone):
    x, y = a_problem(seed, rows, 4)
    gone = min(gone, rows)
    targets = np.random.default_rng(seed).integers(-1000, 1000, rows)

    left = summed(x, y, targets=targets).subtract(summed(x[:gone], y[:gone], targets=targets[:gone]))

    assert left.digest() == summed(x[gone:], y[gone:], targets=targets[gone:]).digest()


def test_a_class_goes_with_its_last_row():
    x, y = a_problem(0, 20, 3)

    left = summed(x, y).subtract(summed(x[y == 1], y[y == 1]))

    assert left.classes == ("a", "z", "ä")


@pytest.mark.parametrize(
    "which", ["another class", "too many rows", "other rows of a class", "the rest of nothing"]
)
def test_refuses_to_subtract_what_was_never_added(which):
    x, y = a_problem(1, 12, 3)
    y = y.copy()
    y[:6], y[6:] = 0, 1
    known = summed(x, y)
    other = {
        "another class": summed(x[:1], np.array([2])),
        "too many rows": summed(np.concatenate([x, x[:1]]), np.append(y, 0)),
        "other rows of a class": summed(np.concatenate([x[:5], x[:1] * 0 + 9]), y[:6]),
        "the rest of nothing": summed(np.concatenate([-x[:6], x[6:]]), y),
    }[which]

    with pytest.raises(NotContained):
        known.subtract(other)


def test_merges_classes_that_only_one_side_has():
    x, _ = a_problem(2, 9, 2)
    one, other = np.zeros(4, int), np.full(5, 3)

    assert summed(x[:4], one).merge(summed(x[4:], other)).classes == ("a", "ä")


def test_refuses_statistics_of_other_features():
    wide, expanded = empty(4), empty(3, Expansion(width=3))
    with pytest.raises(NotTogether, match="width"):
        empty(3).merge(wide)
    with pytest.raises(NotTogether, match="expansions"):
        expanded.merge(empty(3, Expansion(width=3, seed=1)))
    with pytest.raises(NotTogether, match="targets"):
        empty(3).subtract(empty(3, targets=True))


def test_stays_exact_up_to_its_bound_and_refuses_beyond(monkeypatch):
    monkeypatch.setattr(exact, "EXACT", 4 * 100**2)
    x = np.full((3, 2), 100, np.int16)

    three = summed(x, np.zeros(3, int))

    assert three.diagonal().tolist() == [30_000, 30_000]
    with pytest.raises(TooLarge):
        summed(np.concatenate([x, x[:1]]), np.zeros(4, int), block=1)
    with pytest.raises(TooLarge, match="4 rows"):
        three.merge(summed(x[:1], np.zeros(1, int)))


def test_refuses_a_feature_or_a_target_of_twenty_bits():
    x = np.array([[2**20]])
    with pytest.raises(TooLarge, match="feature"):
        summed(x, np.zeros(1, int))
    assert summed(x - 1, np.zeros(1, int)).diagonal().tolist() == [(2**20 - 1) ** 2]
    with pytest.raises(TooLarge, match="target"):
        summed(x - 1, np.zeros(1, int), targets=np.array([-(2**20)]))


def test_refuses_label_keys_out_of_byte_order():
    with pytest.raises(ValueError, match="order"):
        accumulate(("ä", "z"), np.zeros(1, np.int64), [np.ones((1, 1), np.int16)], 1)


def test_refuses_labels_that_do_not_match_the_rows():
    x, y = a_problem(3, 5, 2)
    with pytest.raises(ValueError, match="5 labels for 4 rows"):
        summed(x[:4], y)


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("given", [None, Expansion(width=6, seed=2**62)], ids=["plain", "expanded"])
def test_comes_back_from_its_arrays(given, targets):
    x, y = a_problem(4, 30, 6)
    t = np.arange(30) - 11 if targets else None
    found = accumulate(KEYS, y, [x], 6, given, t)

    back = from_arrays(found.arrays())

    assert back.digest() == found.digest()
    assert (back.classes, back.expansion) == (found.classes, given)


def test_knows_sums_with_the_target():
    x, y = a_problem(5, 25, 4)
    t = np.random.default_rng(0).integers(-LIMIT, LIMIT + 1, 25)

    found = summed(x, y, targets=t).targets

    assert found is not None
    assert found.cross.tolist() == [
        sum(int(a) * int(b) for a, b in zip(column, t, strict=True)) for column in x.T
    ]
    assert (found.total, found.squares) == (sum(map(int, t)), sum(int(v) ** 2 for v in t))


def test_its_digest_is_that_of_its_arrays():
    sha = hashlib.sha256()
    for name, dtype, shape, raw in (
        ("classes", "|u1", (9,), (1).to_bytes(8, "little") + b"a"),
        ("counts", "<i8", (1,), np.array([2]).tobytes()),
        ("gram", "<i8", (3,), np.array([10, 14, 20]).tobytes()),
        ("squares", "<i8", (1, 2), np.array([10, 20]).tobytes()),
        ("sums", "<i8", (1, 2), np.array([4, 6]).tobytes()),
    ):
        for text in (name, dtype):
            sha.update(len(text).to_bytes(8, "little") + text.encode())
        sha.update(len(shape).to_bytes(8, "little") + b"".join(n.to_bytes(8, "little") for n in shape) + raw)

    assert (
        accumulate(("a",), np.zeros(2, np.int64), [np.array([[1, 2], [3, 4]])], 2).digest() == sha.hexdigest()
    )


def test_puts_targets_on_their_grid_and_refuses_what_lies_outside():
    grid = TargetGrid(exponent=-2)
    assert on_grid(np.array([0.1, 0.125, 0.375, -3.0]), grid).tolist() == [0, 0, 2, -12]
    with pytest.raises(OffGrid, match="of row 1 is outside") as error:
        on_grid(np.array([0.0, 262_144.0]), grid)
    assert error.value.row == 1
    with pytest.raises(OffGrid, match="row 0 is not a finite"):
        on_grid(np.array([np.nan]), grid)


def test_refuses_to_subtract_rows_whose_rest_would_have_less_than_no_spread():
    zeros = np.zeros(2, np.int64)
    known = accumulate(("a",), zeros, [np.array([[3], [4]])], 1)

    with pytest.raises(NotContained):
        known.subtract(accumulate(("a",), zeros[:1], [np.array([[0]])], 1))
