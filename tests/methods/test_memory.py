"""What the methods say they need in memory, against what they take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.methods.base import Centroid, Context, Memory, Method, Rows, Snapshot, Split, Task, Unfit
from app.methods.incremental import analytic, fetril, lda, naive_bayes, ridge_regression
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts import crossvalidation
from app.methods.parts.grid import ExponentGrid
from app.methods.parts.learning import SOLVE
from app.methods.parts.model_settings import FixedRidge, TargetGrid

CASES: dict[str, tuple[Method[Any], dict[str, Any], Memory]] = {
    "analytic": (analytic.METHOD, {}, SOLVE),
    "balanced": (analytic.METHOD, {"weights": "classes"}, SOLVE),
    "lda": (lda.METHOD, {}, SOLVE),
    "naive_bayes": (naive_bayes.METHOD, {}, naive_bayes.METHOD.memory),
    "ridge_regression": (ridge_regression.METHOD, {}, SOLVE),
    "fetril": (fetril.METHOD, {"solver": "closed_form"}, SOLVE),
}


def rows_for(method: Method[Any], width: int, classes: int) -> Rows:
    """As many rows as it takes, of nearly the largest values, in small blocks."""
    rng = np.random.default_rng(0)
    x = rng.integers(-32_000, 32_000, (max(3 * classes, 60), width)).astype(np.int16)
    x.flags.writeable = False
    names, labels = tuple(f"{i:04}" for i in range(classes)), np.arange(len(x)) % classes
    targets = None
    if Task.REGRESSION in method.tasks:
        names, labels, targets = ("",), np.zeros(len(x), np.int64), np.rint(rng.standard_normal(len(x)) * 99)
    return Rows(names, labels, lambda: (x[i : i + 64] for i in range(0, len(x), 64)), targets)


def a_model(method: Method[Any], width: int) -> Snapshot:
    spec = InputSpec(kind="vector", shape=(width,))
    target = TargetGrid(exponent=0) if Task.REGRESSION in method.tasks else None
    return Snapshot(spec, ExponentGrid(exponent=-3), NetworkSpec(name="identity"), target=target)


def after_many(version: Snapshot, doublings: int = 14) -> Snapshot:
    """As after so many more rows that the Gram needs a third slice."""
    if version.statistics is None:
        return version
    known = version.statistics
    for _ in range(doublings):
        known = known.merge(known)
    sums = {name: Centroid(c.sum << doublings, c.count << doublings) for name, c in version.centroids.items()}
    return replace(version, statistics=known, centroids=sums)


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of_an_update(
    method: Method[Any], params: dict[str, Any], width: int, classes: int, **model: Any
) -> int:
    """Of the second of two, what the first left counted."""
    rows = rows_for(method, width, classes)

    def run(before: Snapshot) -> Snapshot:
        return method.run(before, {Split.NEW: rows}, method.params(**params), Context()).after

    first = after_many(run(replace(a_model(method, width), **model)))
    kept = 0 if first.statistics is None else first.statistics.gram.nbytes
    return kept + peak_of(lambda: run(first))


@pytest.mark.parametrize(
    ("case", "width", "classes"),
    [(case, 400, 3) for case in CASES] + [(case, 150, 450) for case in CASES if case != "ridge_regression"],
)
def test_an_update_takes_no_more_than_its_method_says(case, width, classes):
    method, params, memory = CASES[case]

    peak = peak_of_an_update(method, params, width, classes)

    said = memory.bytes(width, 1 if Task.REGRESSION in method.tasks else classes)
    assert said / 4 < peak < said


@pytest.mark.parametrize("method", [analytic.METHOD, ridge_regression.METHOD], ids=lambda m: m.name)
def test_so_does_one_that_proves_the_scores_of_its_ridges(method, monkeypatch):
    monkeypatch.setattr(crossvalidation, "BACKWARD", 2.0**60)
    monkeypatch.setattr(crossvalidation, "GRID", (-5, -4))

    peak = peak_of_an_update(method, {}, 400, 3, ridge="gcv")

    assert peak < method.memory.bytes(400, 3)
    assert peak > peak_of_an_update(method, {}, 400, 3, ridge=FixedRidge()) / 2


@pytest.mark.parametrize("case", CASES)
def test_no_more_than_there_is_is_refused_before_any_work(case):
    method, params, memory = CASES[case]
    rows = replace(rows_for(method, 400, 3), blocks=lambda: pytest.fail("it read a row"))
    needed = memory.bytes(400, len(rows.classes))

    with pytest.raises(Unfit, match=r"400 features( and 3 classes)? needs 0\.0 GiB") as error:
        method.run(
            a_model(method, 400), {Split.NEW: rows}, method.params(**params), Context(memory=needed - 1)
        )

    assert error.value.field == "/method/name"


def test_memory_is_counted_by_width_and_classes():
    memory = Memory(square=3, table=7, per_feature=5, per_class=11)
    assert memory.bytes(10) == 3 * 100 + 5 * 10
    assert memory.bytes(10, 4) == 3 * 100 + 5 * 10 + 7 * 40 + 11 * 4
    assert memory.shortage(10, 0, 350) is None
    assert memory.shortage(10, 0, 349) is not None
