"""`fetril`: what a version says and holds; its solvers have a file of their own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from app.methods.base import Context, Progress, Unfit
from app.methods.parts.grid import quantise, unit
from app.methods.parts.scoring import Scorer
from tests.methods.translated import (
    DEVICES,
    NEW,
    OLD,
    a_problem,
    clusters,
    head_of,
    nearness,
)


def test_reports_every_past_class_with_its_donor():
    problem = a_problem()
    outcome = problem.run()

    assert set(outcome.report["donors"]) == set(OLD)
    means = {n: c.mean() for n, c in outcome.after.centroids.items()}
    for past, said in outcome.report["donors"].items():
        assert said["donor"] == max(NEW, key=lambda n: nearness(means[past], means[n], "cosine"))
        assert said["cosine"] == pytest.approx(nearness(means[past], means[said["donor"]], "cosine"))
    assert outcome.report["converged"] is True


@given(st.integers(0, 10**6), st.sampled_from(["svm", "softmax", "closed_form"]))
@settings(deadline=None, max_examples=12)
def test_does_not_see_the_order_of_the_rows(seed, solver):
    problem = a_problem()
    order = np.random.default_rng(seed).permutation(len(problem.x))
    shuffled = replace(problem, x=problem.x[order], labels=[problem.labels[i] for i in order])

    one, other = (head_of(p.run(solver=solver, tol=1e-6))[0] for p in (problem, shuffled))

    assert one == pytest.approx(other, abs=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("solver", ["svm", "softmax", "closed_form"])
def test_does_not_read_the_parents_head(solver):
    problem = a_problem()
    bare = replace(problem, before=replace(problem.before, head=None))

    one, other = (head_of(p.run(solver=solver)) for p in (problem, bare))

    assert one[0].tobytes() == other[0].tobytes()
    assert one[1].tobytes() == other[1].tobytes()


@pytest.mark.parametrize("solver", ["svm", "softmax", "closed_form"])
@pytest.mark.parametrize("device", DEVICES)
def test_classifies_rows_of_old_and_new_classes(solver, device):
    after = a_problem().run(Context(device=torch.device(device)), solver=solver).after
    x, labels = clusters((*OLD, *NEW), each=40, seed=2)
    assert after.head is not None

    found = Scorer(after.head, after.grid)(quantise(x, "normalised")[0]).argmax(axis=1)

    assert np.mean(np.array(after.classes)[found] == np.array(labels)) > 0.85


@pytest.mark.parametrize("solver", ["svm", "closed_form"])
def test_learns_a_known_class_anew_from_its_rows_and_keeps_all_in_its_centroid(solver):
    problem = a_problem(new=("b", "x"))
    outcome = problem.run(solver=solver, tol=1e-6)

    assert outcome.after.classes == (*OLD, "x")
    assert set(outcome.report["donors"]) == set(OLD) - {"b"}
    assert "b" in {said["donor"] for said in outcome.report["donors"].values()}
    old, merged = problem.before.centroids["b"], outcome.after.centroids["b"]
    rows = problem.x[np.array(problem.labels) == "b"].astype(np.int64)
    assert merged.count == old.count + len(rows)
    assert np.array_equal(merged.sum, old.sum + rows.sum(axis=0))


def test_closed_form_puts_a_known_class_at_the_mean_of_all_its_rows():
    outcome = a_problem(new=("b", "x")).run(solver="closed_form")
    weight, bias = head_of(outcome)

    means = np.stack([c.mean() for _, c in sorted(outcome.after.centroids.items())]) * unit("normalised")
    assert bias == pytest.approx(-(weight * means).sum(axis=1) / 2, rel=1e-5)


def test_learns_a_known_class_by_svm_as_liblinear_does_from_its_rows():
    problem = a_problem(new=("b", "x"))
    outcome = problem.run(tol=1e-6)
    means = {name: outcome.after.centroids[name].mean() for name in outcome.after.classes}
    x = problem.x.astype(np.float64)
    labels = np.array(problem.labels)
    made, names = [x], [labels]
    for past, said in outcome.report["donors"].items():
        donor = x[labels == said["donor"]]
        assert said["donor"] == max("bx", key=lambda n: nearness(means[past], means[n], "cosine"))
        made.append(donor - donor.mean(axis=0) + means[past])
        names.append(np.array([past] * len(donor)))
    z = np.concatenate(made)
    z /= np.linalg.norm(z, axis=1, keepdims=True)

    peer = LinearSVC(C=1, tol=1e-8, dual=False, max_iter=10_000).fit(z, np.concatenate(names))

    assert head_of(outcome)[0] == pytest.approx(peer.coef_, abs=2e-3 * np.abs(peer.coef_).max())


def test_closed_form_is_nearest_mean_where_rows_do_not_scatter():
    problem = a_problem()
    first = {name: problem.labels.index(name) for name in NEW}
    single = replace(problem, x=problem.x[list(first.values())], labels=list(first))

    weight, bias = head_of(single.run(solver="closed_form"))

    means = np.stack([c.mean() for _, c in sorted(single.run().after.centroids.items())]) * unit("normalised")
    assert weight == pytest.approx(means, rel=1e-6)
    assert bias == pytest.approx(-(means**2).sum(axis=1) / 2, rel=1e-6)


@pytest.mark.parametrize("solver", ["svm", "softmax", "closed_form"])
def test_takes_rows_of_zeros_as_rows_without_direction(solver):
    problem = a_problem()
    x = problem.x.copy()
    x[:3] = 0

    weight, bias = head_of(replace(problem, x=x).run(solver=solver))

    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()


@pytest.mark.parametrize("solver", ["svm", "softmax"])
def test_refuses_to_tell_one_class_from_nothing(solver):
    with pytest.raises(Unfit, match="two classes") as error:
        a_problem(old=(), new=("x",)).run(solver=solver)
    assert error.value.field == "/datasets"


def test_closed_form_takes_a_single_class():
    after = a_problem(old=(), new=("x",)).run(solver="closed_form").after

    assert after.classes == ("x",)


def test_refuses_past_classes_without_centroids():
    problem = a_problem()
    bare = replace(problem, before=replace(problem.before, centroids={}))

    with pytest.raises(Unfit, match="no centroid") as error:
        bare.run()
    assert error.value.field == "/base"


@pytest.mark.parametrize("solver", ["svm", "softmax"])
def test_says_when_it_ran_out_of_iterations(solver):
    outcome = a_problem().run(solver=solver, max_iterations=2)

    assert outcome.report["converged"] is False
    assert outcome.report["iterations"] == 2


@pytest.mark.parametrize("solver", ["svm", "softmax", "closed_form"])
def test_tells_its_progress_with_every_solver(solver):
    heard: list[Progress] = []

    a_problem().run(Context(on_progress=heard.append), solver=solver)

    assert all(a.done <= b.done and a.total == b.total for a, b in pairwise(heard))
    assert heard[-1].done == heard[-1].total
