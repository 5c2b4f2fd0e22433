"""`ncm` against its definition, and learning in parts against learning at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from app.methods.base import Context, Outcome, Snapshot, Split, Unfit
from app.methods.incremental.ncm import METHOD, NcmParams
from app.methods.parts.grid import ExponentGrid, quantise
from app.methods.parts.scoring import Scorer
from tests.methods.conftest import KNOWN, NEW, a_version, blobs, rows_of

COSINE, EUCLIDEAN = NcmParams(metric="cosine"), NcmParams(metric="euclidean")


def learn(before: Snapshot, x: np.ndarray, labels: list[str], params: NcmParams) -> Outcome:
    return METHOD.run(before, {Split.NEW: rows_of(x, labels)}, params, Context())


def grid_rows(names: tuple[str, ...] = KNOWN, seed: int = 5, each: int = 9) -> tuple[np.ndarray, list[str]]:
    x, labels = blobs(names, each=each, seed=seed)
    return quantise(x, "normalised")[0], labels


def guesses(version: Snapshot, x: np.ndarray) -> list[str]:
    assert version.head is not None
    return [version.classes[i] for i in Scorer(version.head, version.grid)(x).argmax(axis=1)]


def test_picks_the_mean_at_the_smallest_angle():
    x, labels = grid_rows()
    probe = np.random.default_rng(1).integers(-8192, 8192, (500, x.shape[1])).astype(np.int16)
    after = learn(a_version(), x, labels, COSINE).after

    means = np.stack([x[np.array(labels) == name].mean(axis=0) for name in after.classes])
    cosines = (probe @ means.T) / np.linalg.norm(means, axis=1) / np.linalg.norm(probe, axis=1)[:, None]
    assert guesses(after, probe) == [after.classes[i] for i in cosines.argmax(axis=1)]
    assert after.head is not None
    assert Scorer(after.head, after.grid)(probe) == pytest.approx(cosines, abs=1e-6)


@pytest.mark.parametrize("grid", ["normalised", ExponentGrid(exponent=-9)])
def test_picks_the_mean_at_the_smallest_distance(grid):
    x, labels = grid_rows()
    probe = np.random.default_rng(1).integers(-8192, 8192, (500, x.shape[1])).astype(np.int16)
    after = learn(replace(a_version(), grid=grid), x, labels, EUCLIDEAN).after

    reference = NearestCentroid().fit(x.astype(np.float64), labels)
    assert guesses(after, probe) == reference.predict(probe.astype(np.float64)).tolist()


def test_gives_a_class_whose_rows_cancel_no_direction():
    x = np.array([[8192, 0, 0, 0, 0, 0, 0, 0], [-8192, 0, 0, 0, 0, 0, 0, 0]], np.int16)

    after = learn(a_version(), x, ["void", "void"], COSINE).after

    assert after.head is not None
    assert after.head.weight.tolist() == [[0.0] * 8]


@given(st.integers(1, 26), st.integers(0, 10**6))
@settings(deadline=None)
def test_learns_the_same_bytes_in_parts_and_at_once(cut, seed):
    x, labels = grid_rows()
    order = np.random.default_rng(seed).permutation(len(x))
    shuffled, names = x[order], [labels[i] for i in order]

    first = learn(a_version(), shuffled[:cut], names[:cut], COSINE).after
    both = learn(first, shuffled[cut:], names[cut:], COSINE).after

    once = learn(a_version(), x, labels, COSINE).after
    assert both.head is not None
    assert once.head is not None
    assert both.classes == once.classes
    assert both.head.weight.numpy().tobytes() == once.head.weight.numpy().tobytes()
    assert [c.count for c in both.centroids.values()] == [9, 9, 9]


def test_reads_a_version_of_the_other_metric():
    old, old_labels = grid_rows(KNOWN, seed=0, each=12)  # what `a_version` knows
    new, new_labels = grid_rows(NEW)

    after = learn(a_version(KNOWN), new, new_labels, EUCLIDEAN).after
    once = learn(a_version(), np.concatenate([old, new]), old_labels + new_labels, EUCLIDEAN).after

    assert after.head is not None
    assert once.head is not None
    assert after.classes == once.classes
    assert np.array_equal(after.head.weight, once.head.weight)


def test_refuses_a_version_without_centroids():
    bare = replace(a_version(KNOWN), centroids={})

    with pytest.raises(Unfit, match="no centroid"):
        learn(bare, *grid_rows(NEW), COSINE)
