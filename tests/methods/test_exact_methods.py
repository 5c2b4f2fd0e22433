"""`analytic`, `lda`, `naive_bayes`, `ridge_regression` as methods: what they give and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.methods.base import Context, Method, Rows, Snapshot, Split, Task, Unfit
from app.methods.incremental import analytic, lda, naive_bayes, ridge_regression
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts import statistics as exact
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import quantise
from app.methods.parts.model_settings import FixedRidge, TargetGrid
from app.methods.parts.scoring import scorer_of
from app.methods.parts.statistics import empty
from tests.methods.conftest import blobs, rows_of

CLASSIFIERS = (analytic.METHOD, lda.METHOD, naive_bayes.METHOD)
METHODS = (*CLASSIFIERS, ridge_regression.METHOD)
EXPANSION = Expansion(width=40, seed=2)
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
each_classifier = pytest.mark.parametrize("method", CLASSIFIERS, ids=lambda m: m.name)


def a_model(method: Method[Any], expansion: Expansion | None = EXPANSION) -> Snapshot:
    target = TargetGrid(exponent=-10) if Task.REGRESSION in method.tasks else None
    spec = InputSpec(kind="vector", shape=(8,))
    return Snapshot(spec, "normalised", NetworkSpec(name="identity"), expansion=expansion, target=target)


def some_rows(
    method: Method[Any], names: tuple[str, ...] = ("red", "green", "amber"), each: int = 20
) -> Rows:
    x, labels = blobs(names, each, seed=1)
    targets = np.arange(len(x)) / 7 if Task.REGRESSION in method.tasks else None
    return rows_of(quantise(x, "normalised")[0], labels, targets=targets)


def run(
    method: Method[Any], before: Snapshot, rows: Rows, ctx: Context | None = None, **params: object
) -> Snapshot:
    return method.run(before, {Split.NEW: rows}, method.params(**params), ctx or Context()).after


NO_ROWS = Rows((), np.zeros(0, np.int64), lambda: iter(()))


@each_classifier
@pytest.mark.parametrize("expansion", [None, EXPANSION], ids=["plain", "expanded"])
def test_classifies_rows_it_never_saw(method, expansion):
    after = run(method, a_model(method, expansion), some_rows(method))
    x, labels = blobs(("red", "green", "amber"), 60, seed=5)

    found = scorer_of(after)(quantise(x, "normalised")[0]).argmax(axis=1)

    assert np.mean(np.array(after.classes)[found] == np.array(labels)) > 0.95
    assert after.head is not None
    assert after.head.expanded == (expansion is not None)


def test_regression_predicts_a_linear_target():
    rng = np.random.default_rng(0)
    x, slope = rng.standard_normal((400, 8)), rng.standard_normal(8)
    stored = quantise(x, "normalised")[0]
    target = stored @ slope / 2**13 * 5 - 40
    model = replace(a_model(ridge_regression.METHOD, None), ridge=FixedRidge(k=-20))
    rows = rows_of(stored[:300].copy(), [""] * 300, targets=target[:300])

    after = run(ridge_regression.METHOD, model, rows)

    assert after.classes == ()
    assert scorer_of(after).values(stored[300:]) == pytest.approx(target[300:], abs=2**-9)


def test_says_which_ridge_it_took():
    rows, model = some_rows(analytic.METHOD), replace(a_model(analytic.METHOD), ridge="gcv")
    outcome = analytic.METHOD.run(model, {Split.NEW: rows}, analytic.AnalyticParams(), Context())

    fixed = replace(model, ridge=FixedRidge(k=outcome.report["k"]))
    again = analytic.METHOD.run(fixed, {Split.NEW: rows}, analytic.AnalyticParams(), Context())

    assert again.report == outcome.report
    assert again.after.head is not None
    assert outcome.after.head is not None
    assert again.after.head.weight.equal(outcome.after.head.weight)


def test_class_weights_help_a_rare_class():
    x, labels = blobs(("red",), 300, seed=1)
    y, more = blobs(("green",), 3, seed=2)
    rows = rows_of(quantise(np.concatenate([x, y]), "normalised")[0], labels + more)
    judged = quantise(blobs(("green",), 200, seed=3)[0], "normalised")[0]

    margin = {}
    for weights in ("rows", "classes"):
        after = run(analytic.METHOD, a_model(analytic.METHOD), rows, weights=weights)
        score = scorer_of(after)(judged)
        margin[weights] = (score[:, 0] - score[:, 1]).mean()  # green before red

    assert margin["classes"] > margin["rows"] + 0.02


@each_method
def test_reads_each_new_row_once_and_no_old_one(method):
    before, rows = run(method, a_model(method), some_rows(method)), some_rows(method, ("blue",), 30)
    read: list[int] = []

    def counted() -> Any:
        for block in rows.blocks():
            read.append(len(block))
            yield block

    run(method, before, replace(rows, blocks=counted))

    assert sum(read) == len(rows.labels)
    assert len(read) > 1  # block by block


@each_method
def test_refuses_to_learn_from_nothing(method):
    with pytest.raises(Unfit, match="no rows") as error:
        run(method, a_model(method), NO_ROWS)
    assert error.value.field == "/datasets"


@pytest.mark.parametrize("method", [lda.METHOD, naive_bayes.METHOD], ids=lambda m: m.name)
def test_refuses_one_shot_where_it_needs_a_covariance(method):
    with pytest.raises(Unfit, match="variance") as error:
        run(method, a_model(method), some_rows(method, each=1))
    assert error.value.field == "/datasets"


def test_takes_one_shot_where_a_ridge_is_enough():
    assert run(analytic.METHOD, a_model(analytic.METHOD), some_rows(analytic.METHOD, each=1)).head is not None


@each_method
def test_refuses_a_width_that_does_not_fit_before_any_work(method):
    model = a_model(method, Expansion(width=16_384))

    def untouched() -> Any:
        raise AssertionError("it read a row")

    with pytest.raises(Unfit, match=r"16,384 features( and 3 classes)? needs \d\.\d GiB") as error:
        run(method, model, replace(some_rows(method), blocks=untouched), Context(memory=2**32))
    assert error.value.field == "/method/name"


@each_method
@pytest.mark.parametrize("other", [Expansion(width=40, seed=3), Expansion(width=41, seed=2), None], ids=str)
def test_refuses_statistics_of_another_expansion(method, other):
    before = run(method, a_model(method), some_rows(method))

    with pytest.raises(Unfit, match="other features") as error:
        run(method, replace(before, expansion=other), some_rows(method))
    assert error.value.field == "/base"


@each_method
def test_refuses_a_version_without_statistics(method):
    before = replace(run(method, a_model(method), some_rows(method)), statistics=None)

    with pytest.raises(Unfit, match="no statistics") as error:
        run(method, before, some_rows(method))
    assert error.value.field == "/base"


@each_classifier
def test_refuses_statistics_of_other_classes(method):
    before = run(method, a_model(method), some_rows(method))
    assert before.statistics is not None
    short = replace(before, statistics=empty(40, EXPANSION))

    with pytest.raises(Unfit, match="other classes") as error:
        run(method, short, some_rows(method))
    assert error.value.field == "/base"


def test_refuses_a_ridge_too_small_to_round_with():
    x, labels = blobs(("red", "green"), 6, seed=1)
    stored = quantise(np.concatenate([x, x], axis=1), "normalised")[0]  # every feature twice
    model = replace(
        a_model(analytic.METHOD, None),
        input=InputSpec(kind="vector", shape=(16,)),
        ridge=FixedRidge.model_construct(k=-120),
    )

    with pytest.raises(Unfit, match="use a model with a larger one") as error:
        run(analytic.METHOD, model, rows_of(stored, labels))
    assert error.value.field == "/method"


@each_method
def test_refuses_more_than_stays_exact(method, monkeypatch):
    before = run(method, a_model(method), some_rows(method))
    assert before.statistics is not None
    sums = before.statistics.targets
    largest = max(int(before.statistics.diagonal().max()), sums.squares if sums else 0)
    monkeypatch.setattr(exact, "EXACT", largest + 1)

    with pytest.raises(Unfit, match=r"2\*\*53") as error:
        run(method, before, some_rows(method))
    assert error.value.field == "/datasets"


@pytest.mark.parametrize("target", [1e9, np.inf, np.nan])
def test_refuses_a_target_off_the_grid(target):
    rows = some_rows(ridge_regression.METHOD)
    assert rows.targets is not None
    targets = rows.targets.copy()
    targets[3] = target

    with pytest.raises(Unfit, match="row 3") as error:
        run(ridge_regression.METHOD, a_model(ridge_regression.METHOD), replace(rows, targets=targets))
    assert error.value.field == "/datasets"


def test_refuses_labels_for_targets_and_targets_for_labels():
    with pytest.raises(Unfit, match="targets"):
        run(ridge_regression.METHOD, a_model(ridge_regression.METHOD), some_rows(lda.METHOD))
    with pytest.raises(Unfit, match="targets"):
        run(lda.METHOD, a_model(lda.METHOD), some_rows(ridge_regression.METHOD))


def test_refuses_a_model_without_a_grid_for_targets():
    with pytest.raises(Unfit, match="grid for targets") as error:
        run(ridge_regression.METHOD, a_model(lda.METHOD), some_rows(ridge_regression.METHOD))
    assert error.value.field == "/method/name"
