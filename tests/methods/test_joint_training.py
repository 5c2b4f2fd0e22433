"""The promise of the exact heads: any updates in any order equal training on all rows at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from app.methods.base import Context, Method, Snapshot, Split, Task
from app.methods.incremental import analytic, lda, naive_bayes, ridge_regression
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import quantise
from app.methods.parts.model_settings import TargetGrid
from tests.methods.conftest import rows_of

WIDTH = 6
NAMES = np.array(["b", "C", "z", "ä", "a"])
METHODS = (analytic.METHOD, lda.METHOD, naive_bayes.METHOD, ridge_regression.METHOD)
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def a_model(method: Method[Any], expansion: Expansion | None) -> Snapshot:
    empty = Snapshot(InputSpec(kind="vector", shape=(WIDTH,)), "normalised", NetworkSpec(name="identity"))
    target = TargetGrid(exponent=-8) if Task.REGRESSION in method.tasks else None
    return replace(empty, expansion=expansion, target=target)


def some_rows(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features on the grid, names with a long tail, targets."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.geometric(0.4, rows) - 1, len(NAMES) - 1)
    x = rng.standard_normal((len(NAMES), WIDTH))[label] + rng.standard_normal((rows, WIDTH))
    return quantise(x, "normalised")[0], NAMES[label], x @ rng.standard_normal(WIDTH)


def learn(
    method: Method[Any],
    before: Snapshot,
    data: tuple[np.ndarray, ...],
    index: np.ndarray,
    block: int,
    **params: object,
) -> Snapshot:
    x, names, targets = (column[index] for column in data)
    real = targets if before.target is not None else None
    rows = rows_of(x, names.tolist(), block, real)
    return method.run(before, {Split.NEW: rows}, method.params(**params), Context()).after


def digests(version: Snapshot) -> tuple[str, str]:
    assert version.head is not None
    assert version.statistics is not None
    return version.statistics.digest(), version.head.digest(version.classes)


@each_method
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(40, 90),
    cuts=st.lists(st.integers(25, 90), max_size=4),
    block=st.integers(1, 50),
    expansion=st.sampled_from([None, Expansion(width=17, seed=3)]),
)
def test_any_split_and_order_of_updates_equals_joint_training(method, seed, rows, cuts, block, expansion):
    data, empty = some_rows(seed, rows), a_model(method, expansion)
    order = np.random.default_rng(seed).permutation(rows)
    parts = np.split(order, sorted(min(cut, rows) for cut in cuts))

    joint, version = learn(method, empty, data, np.arange(rows), 64), empty
    for part in parts:  # some may be empty: the head is made again
        version = learn(method, version, data, part, block)

    assert digests(version) == digests(joint)
    assert version.classes == joint.classes
    assert {n: (c.count, c.sum.tolist()) for n, c in version.centroids.items()} == {
        n: (c.count, c.sum.tolist()) for n, c in joint.centroids.items()
    }


@pytest.mark.parametrize("weights", ["rows", "classes"])
@pytest.mark.parametrize("setting", ["gcv", None])
def test_classes_one_after_the_other_equal_all_interleaved(weights, setting):
    data, empty = some_rows(1, 120), a_model(analytic.METHOD, Expansion(width=20))
    if setting is not None:
        empty = replace(empty, ridge=setting)

    joint, version = learn(analytic.METHOD, empty, data, np.arange(120), 9, weights=weights), empty
    for name in NAMES[::-1]:
        version = learn(analytic.METHOD, version, data, np.flatnonzero(data[1] == name), 5, weights=weights)

    assert digests(version) == digests(joint)


@each_method
def test_the_number_of_threads_does_not_enter(method):
    data, empty = some_rows(2, 500), a_model(method, Expansion(width=150))

    found = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.add(digests(learn(method, empty, data, np.arange(500), 100)))

    assert len(found) == 1


def test_one_head_after_another_on_the_same_statistics_needs_no_row():
    data, version = some_rows(3, 60), a_model(lda.METHOD, Expansion(width=17))
    version = learn(lda.METHOD, version, data, np.arange(60), 9)
    none = np.arange(0)

    again = learn(naive_bayes.METHOD, version, data, none, 9)
    back = learn(lda.METHOD, again, data, none, 9)

    assert digests(back) == digests(version)
    assert digests(again)[0] == digests(version)[0]
    assert digests(again)[1] != digests(version)[1]
