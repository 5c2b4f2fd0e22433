"""The donor choice against a search of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.base import Centroid
from app.methods.parts.donors import choose
from tests.methods.translated import nearness


def centroids(means: np.ndarray, count: int = 1) -> list[Centroid]:
    return [Centroid(row, count) for row in np.rint(means * 2**20).astype(np.int64)]


@given(st.integers(0, 10**6), st.sampled_from(["cosine", "euclidean"]))
@settings(deadline=None, max_examples=30)
def test_chooses_the_donor_that_a_search_of_all_pairs_finds(seed, rule):
    rng = np.random.default_rng(seed)
    past, new = rng.standard_normal((6, 5)), rng.standard_normal((4, 5))

    past, new = (np.rint(x * 2**20) / 2**20 for x in (past, new))
    found = choose(centroids(past), centroids(new), rule)

    best = [max(range(4), key=lambda j: nearness(p, new[j], rule)) for p in past]
    assert found.index.tolist() == best
    assert found.cosine == pytest.approx(
        [nearness(p, new[j], "cosine") for p, j in zip(past, best, strict=True)]
    )
    assert -found.distance / 2**20 == pytest.approx(
        [nearness(p, new[j], "euclidean") for p, j in zip(past, best, strict=True)]
    )


@pytest.mark.parametrize("rule", ["cosine", "euclidean"])
def test_gives_equal_candidates_to_the_first_label_key(rule):
    rng = np.random.default_rng(0)
    for width in (3, 17, 384):
        twin = rng.standard_normal(width)
        new = np.stack([rng.standard_normal(width) + 9, twin, twin, twin])

        assert choose(centroids(twin[None] * 1.1), centroids(new), rule).index.tolist() == [1]


def test_can_take_another_donor_by_distance_than_by_angle():
    new = np.array([[0.9, 0.1], [10.0, 0.0]])
    past = np.array([[1.0, 0.0]])

    assert choose(centroids(past), centroids(new), "cosine").index.tolist() == [1]
    assert choose(centroids(past), centroids(new), "euclidean").index.tolist() == [0]


def test_finds_no_angle_to_a_centroid_of_zeros():
    found = choose(centroids(np.zeros((1, 2))), centroids(np.array([[1.0, 0.0], [0.0, 0.0]])), "cosine")

    assert found.index.tolist() == [0]
    assert found.cosine.tolist() == [0.0]


@pytest.mark.parametrize("rule", ["cosine", "euclidean"])
def test_tells_apart_in_integers_what_float64_rounds_together(rule):
    past = Centroid(np.array([2**40, 2**40 + 1]), 1)
    worse, better = Centroid(np.array([2**40, 2**40]), 1), Centroid(np.array([2**41, 2**41 + 2]), 2)

    assert choose([past], [worse, better], rule).index.tolist() == [1]
    assert choose([past], [better, worse], rule).index.tolist() == [0]
