"""Sums and counts: exact whatever the blocks, the order and the merging."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.base import Centroid, Unfit
from app.methods.parts.centroids import MOST_ROWS, by_key, class_centroids, merge, need_centroids
from tests.methods.conftest import KNOWN, a_version

NAMES = ("a", "b", "c")


def data(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Rows over the whole range of int16, each of three classes among them."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, rows - 3)])
    return rng.integers(-32_767, 32_768, (rows, 4)).astype(np.int16), labels


def same(a: dict[str, Centroid], b: dict[str, Centroid]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[n].sum, b[n].sum) and a[n].count == b[n].count for n in a
    )


@given(st.integers(0, 10**6), st.lists(st.integers(0, 60), max_size=5))
@settings(deadline=None)
def test_are_the_same_for_any_cut_into_blocks_and_any_order(seed, cuts):
    x, labels = data(seed)
    order = np.random.default_rng(seed + 1).permutation(len(x))

    found = class_centroids(labels[order], NAMES, np.split(x[order], sorted(cuts)))

    for i, name in enumerate(NAMES):
        exact = [sum(int(v) for v in column) for column in x[labels == i].T]
        assert found[name].sum.tolist() == exact
        assert found[name].count == int((labels == i).sum())


@given(st.integers(0, 10**6), st.integers(3, 57))
@settings(deadline=None)
def test_merge_to_what_all_rows_at_once_give(seed, cut):
    x, labels = data(seed)
    parts = []
    for chosen in (slice(cut), slice(cut, None)):
        present = np.unique(labels[chosen])
        names = tuple(NAMES[i] for i in present)
        parts.append(class_centroids(np.searchsorted(present, labels[chosen]), names, [x[chosen]]))

    assert same(merge(*parts), class_centroids(labels, NAMES, [x]))
    assert same(merge(*reversed(parts)), class_centroids(labels, NAMES, [x]))


def test_leave_what_they_are_merged_from_as_it_was():
    x, labels = data(0)
    known = class_centroids(labels, NAMES, [x])
    copy = {name: replace(c, sum=c.sum.copy()) for name, c in known.items()}

    merge(known, known)

    assert same(known, copy)


def test_have_the_mean_that_exact_arithmetic_rounds_to():
    x, labels = data(1, rows=1_000)
    mean = class_centroids(labels, NAMES, [x])["b"].mean()

    chosen = x[labels == 1]
    exact = [Fraction(sum(int(v) for v in column), len(chosen)) for column in chosen.T]
    assert mean.tolist() == [float(v) for v in exact]  # float of a Fraction is correctly rounded


def test_do_not_overflow_where_int32_would():
    x = np.full((70_000, 1), 32_767, np.int16)

    assert class_centroids(np.zeros(70_000, np.int64), ("a",), [x])["a"].sum[0] == 70_000 * 32_767


def test_stay_exact_up_to_the_most_rows_and_refuse_more():
    largest = Centroid(np.array([32_767 * (MOST_ROWS - 1)]), MOST_ROWS - 1)
    one = Centroid(np.array([32_767]), 1)

    merged = merge({"a": largest}, {"a": one})
    assert int(float(merged["a"].sum[0])) == 32_767 * MOST_ROWS
    with pytest.raises(Unfit, match="more than"):
        merge(merged, {"a": one})


def test_refuse_no_rows_and_classes_without_any():
    with pytest.raises(Unfit, match="no rows") as no_rows:
        class_centroids(np.zeros(0, np.int64), (), [])
    with pytest.raises(Unfit, match="'b' has no rows") as no_class:
        class_centroids(np.zeros(2, np.int64), ("a", "b"), [np.ones((2, 3), np.int16)])

    assert no_rows.value.field == no_class.value.field == "/datasets"


def test_refuse_labels_that_do_not_match_the_rows():
    with pytest.raises(ValueError, match="3 labels for 2 rows"):
        class_centroids(np.zeros(3, np.int64), ("a",), [np.ones((2, 3), np.int16)])


def test_come_in_the_order_of_the_bytes_of_their_keys():
    assert by_key({"é": 1, "z": 2, "Z": 3, "a": 4, "ａ": 5, "𝔞": 6}) == ("Z", "a", "z", "é", "ａ", "𝔞")


def test_are_needed_of_every_known_class():
    version = a_version(KNOWN)
    need_centroids(version)
    imported = replace(version, centroids={k: v for k, v in version.centroids.items() if k != "green"})

    with pytest.raises(Unfit, match="'green' of this version has no centroid") as error:
        need_centroids(imported)
    assert error.value.field == "/base"
