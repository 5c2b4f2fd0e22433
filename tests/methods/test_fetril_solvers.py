"""FeTrIL's solvers against the same classifiers on pseudo-features that are really made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from app.methods.base import Context
from app.methods.incremental.fetril import classes_of, scatter_of, translated_rows
from app.methods.parts import translation
from app.methods.parts.centroids import class_centroids, merge
from app.methods.parts.grid import unit
from tests.methods.conftest import rows_of
from tests.methods.translated import (
    DEVICES,
    PROBLEMS,
    WIDTH,
    a_problem,
    head_of,
)


def hinge_objective(w: np.ndarray, z: np.ndarray, y: np.ndarray, C: float) -> tuple[float, np.ndarray]:
    """liblinear's primal L2-loss objective of one class in float64, rows ending in the constant 1."""
    missing = np.maximum(0, 1 - y * (z @ w))
    return w @ w / 2 + C * missing @ missing, w - 2 * C * z.T @ (y * missing)


@pytest.mark.parametrize("given", PROBLEMS)
@pytest.mark.parametrize("device", DEVICES)
def test_svm_reaches_the_lowest_objective_of_every_class(given, device):
    problem = a_problem(**given)
    outcome = problem.run(Context(device=torch.device(device)), tol=1e-6)
    z, names = problem.pseudo()
    z = np.c_[z, np.ones(len(z))]
    weight, bias = head_of(outcome)

    for i, name in enumerate(outcome.after.classes):
        y = np.where(names == name, 1.0, -1.0)
        best = minimize(
            hinge_objective, np.zeros(z.shape[1]), (z, y, 1.0), "L-BFGS-B", jac=True, options={"ftol": 1e-15}
        )
        ours, _ = hinge_objective(np.r_[weight[i], bias[i]], z, y, 1.0)
        assert ours == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.parametrize("given", PROBLEMS)
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_svm_is_liblinears_on_materialised_pseudo_features(given, C):
    problem = a_problem(**given)
    outcome = problem.run(C=C, tol=1e-6)
    z, names = problem.pseudo()
    weight, bias = head_of(outcome)

    peer = LinearSVC(C=C, tol=1e-8, dual=False, max_iter=10_000).fit(z, names)

    assert tuple(peer.classes_) == outcome.after.classes
    if len(peer.classes_) == 2:  # scikit-learn keeps one of two opposite rows
        weight, bias = weight[1:], bias[1:]
    assert weight == pytest.approx(peer.coef_, abs=2e-3 * np.abs(peer.coef_).max())
    assert bias == pytest.approx(peer.intercept_, abs=2e-3 * np.abs(peer.coef_).max())


@pytest.mark.parametrize("given", PROBLEMS)
def test_softmax_is_logistic_regression_on_materialised_pseudo_features(given):
    problem = a_problem(**given)
    outcome = problem.run(solver="softmax", weight_decay=1e-3, tol=1e-6)
    z, names = problem.pseudo()
    z = np.c_[z, np.ones(len(z))]
    weight, bias = head_of(outcome)

    peer = LogisticRegression(C=1 / (1e-3 * len(z)), fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
        z, names
    )

    found = np.c_[weight, bias]
    if len(outcome.after.classes) == 2:  # two symmetric rows cost half of one: compare what tells them apart
        found, peer_coef = found[1:] - found[:1], two_rows(z, names == outcome.after.classes[1], 1e-3)
    else:
        peer_coef = peer.coef_
    assert found == pytest.approx(peer_coef, abs=2e-3 * np.abs(peer_coef).max())


def two_rows(z: np.ndarray, positive: np.ndarray, decay: float) -> np.ndarray:
    """The difference of the rows of a softmax over two classes: logistic regression at half the penalty."""
    y = np.where(positive, 1.0, -1.0)

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = y * (z @ w)
        slope = -y / (1 + np.exp(margin)) / len(z)
        return np.logaddexp(0, -margin).mean() + decay * w @ w / 4, z.T @ slope + decay * w / 2

    found = minimize(objective, np.zeros(z.shape[1]), method="L-BFGS-B", jac=True, options={"ftol": 1e-15})
    difference: np.ndarray = found.x[None]
    return difference


@pytest.mark.parametrize("given", PROBLEMS)
@pytest.mark.parametrize("shrinkage", [0.1, 0.7, 1.0])
def test_closed_form_is_the_shrunk_discriminant_on_materialised_pseudo_features(given, shrinkage):
    problem = a_problem(**given)
    outcome = problem.run(solver="closed_form", shrinkage=shrinkage)
    z, names = problem.pseudo(normalise=False)
    weight, bias = head_of(outcome)

    # scikit-learn weighs class covariances by the priors: with the priors of the rows that pools scatters
    share = np.array([(names == name).mean() for name in outcome.after.classes])
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=share).fit(z, names)

    coef, intercept = peer.coef_, peer.intercept_ - np.log(share)  # and ours have equal priors
    if len(share) == 2:  # one row for the difference of two
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        intercept = peer.intercept_ - np.log(share[1] / share[0])
    assert weight == pytest.approx(coef, rel=1e-5, abs=1e-6 * np.abs(coef).max())
    assert bias == pytest.approx(intercept, rel=1e-5, abs=1e-6 * np.abs(intercept).max())


@pytest.mark.parametrize("given", PROBLEMS)
@pytest.mark.parametrize("rule", ["cosine", "euclidean"])
def test_has_the_moments_of_materialised_pseudo_features(given, rule):
    problem = a_problem(**given)
    rows = rows_of(problem.x, problem.labels)
    own = class_centroids(rows.labels, rows.classes, rows.blocks())
    classes = classes_of(rows.classes, own, merge(problem.before.centroids, own), rule)

    found = scatter_of(rows.labels, rows.blocks(), classes)

    z, names = problem.pseudo(rule, normalise=False)
    centred, step = z.copy(), unit(problem.before.grid)
    for i, name in enumerate(classes.names):
        chosen = names == name
        mean = z[chosen].mean(axis=0)
        centred[chosen] -= mean
        assert classes.means[i] * step == pytest.approx(mean, rel=1e-8)
    scatter = centred.T @ centred
    sums = found.sums.astype(np.float64)
    ours = (found.gram - sums.T @ ((found.shares / found.counts)[:, None] * sums)) * step**2
    assert found.rows == len(z)
    assert np.linalg.norm(ours - scatter) <= 1e-8 * np.linalg.norm(scatter)
    assert float(found.trace()) * step**2 == pytest.approx(np.trace(scatter), rel=1e-10)


@pytest.mark.parametrize("given", PROBLEMS)
@pytest.mark.parametrize("limit", [2**20, 200])
def test_sums_over_pseudo_rows_without_making_them(given, limit, monkeypatch):
    monkeypatch.setitem(translation.NUMBERS, "cpu", limit)  # the small one cuts donors into many blocks
    problem = a_problem(**given)
    rows = rows_of(problem.x, problem.labels)
    found = class_centroids(rows.labels, rows.classes, rows.blocks())
    classes = classes_of(rows.classes, found, merge(problem.before.centroids, found), "cosine")
    made = translated_rows(rows, classes, unit(problem.before.grid), torch.device("cpu"))
    columns = torch.tensor([len(classes.names) - 1, 0])
    w = torch.randn(WIDTH + 1, 2, generator=torch.Generator().manual_seed(0))

    def twice_and_own(scores: torch.Tensor, own: translation.Own) -> torch.Tensor:
        left = 2 * scores
        own.set(left, own.get(scores) ** 2)
        return left

    summed = made.gradient(w[:-1], w[-1], columns, twice_and_own)

    z, names = problem.pseudo()
    z = np.c_[z, np.ones(len(z))]
    score = z @ w.numpy().astype(np.float64)
    is_own = names[:, None] == np.array(classes.names)[columns.numpy()]
    assert made.count == len(z)
    expected = z.T @ np.where(is_own, score**2, 2 * score)
    assert summed.numpy() == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())


def test_takes_a_pseudo_row_that_cancels_to_zero_as_one_without_direction():
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])

    inverse = translation.inverse_lengths(rows, np.array([[0.0, 0.0], [-1.0, -2.0], [-3.0, -4.0]]))

    assert inverse == pytest.approx(np.array([[5**-0.5, 0.2], [0.0, 8**-0.5], [8**-0.5, 0.0]]))
