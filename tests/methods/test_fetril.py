"""`fetril` against the same classifier on pseudo-features that are really made, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from app.methods.base import Context, Outcome, Progress, Snapshot, Split, Unfit
from app.methods.incremental import ncm
from app.methods.incremental.fetril import METHOD, FetrilParams, classes_of, moments_of, translated_rows
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts import translation
from app.methods.parts.centroids import class_centroids, merge
from app.methods.parts.donors import choose
from app.methods.parts.grid import ExponentGrid, Grid, quantise, unit
from app.methods.parts.scoring import scores
from tests.methods.conftest import rows_of

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
WIDTH = 12
OLD, NEW = tuple("abcde"), tuple("CDxyz")  # new classes before and after the old ones in byte order


def clusters(names: tuple[str, ...], each: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Overlapping classes of different shape around random centres: no solver has an easy time."""
    x, labels = [], []
    for name in names:
        of_class = np.random.default_rng(ord(name))  # a class is the same wherever it is asked for
        shape = 0.35 * of_class.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH) + 0.2 * np.eye(WIDTH)
        centre = of_class.standard_normal(WIDTH) / 2 + 0.5
        rng = np.random.default_rng((ord(name), seed))
        count = each + ord(name) % 3  # unequal counts
        x.append(centre + rng.standard_normal((count, WIDTH)) @ shape)
        labels += [name] * count
    return np.concatenate(x).astype(np.float32), labels


@dataclass(frozen=True)
class Problem:
    before: Snapshot
    x: np.ndarray  # (rows, width) int16
    labels: list[str]

    def run(self, ctx: Context | None = None, **params: object) -> Outcome:
        data = {Split.NEW: rows_of(self.x, self.labels)}
        return METHOD.run(self.before, data, FetrilParams.model_validate(params), ctx or Context())

    def pseudo(self, rule: str = "cosine", *, normalise: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The rows that FeTrIL learns from, made one class at a time in float64, and their labels."""
        x = self.x.astype(np.float64) * unit(self.before.grid)
        labels = np.array(self.labels)
        means = {name: x[labels == name].mean(axis=0) for name in sorted(set(self.labels))}
        made, names = [x], [labels]
        for past, centroid in self.before.centroids.items():
            if past in means:
                continue
            mu = centroid.mean() * unit(self.before.grid)
            donor = max(means, key=lambda n: nearness(mu, means[n], rule))
            rows = x[labels == donor]
            made.append(rows - means[donor] + mu)
            names.append(np.array([past] * len(rows)))
        z = np.concatenate(made)
        return z / np.linalg.norm(z, axis=1, keepdims=True) if normalise else z, np.concatenate(names)


def nearness(a: np.ndarray, b: np.ndarray, rule: str) -> float:
    if rule == "euclidean":
        return -float(np.linalg.norm(a - b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def a_problem(
    old: tuple[str, ...] = OLD, new: tuple[str, ...] = NEW, grid: Grid = "normalised", each: int = 20
) -> Problem:
    empty = Snapshot(InputSpec(kind="vector", shape=(WIDTH,)), grid, NetworkSpec(name="identity"))
    before = empty
    if old:
        x, labels = clusters(old, 20)
        rows = rows_of(quantise(x, grid)[0], labels)
        before = ncm.METHOD.run(empty, {Split.NEW: rows}, ncm.NcmParams(), Context()).after
    x, labels = clusters(new, each, seed=1)
    return Problem(before, quantise(x, grid)[0], labels)


def head_of(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    head = outcome.after.head
    assert head is not None
    return head.weight.numpy().astype(np.float64), head.bias.numpy().astype(np.float64)


PROBLEMS = [
    pytest.param({}, id="five past, five new"),
    pytest.param({"old": ()}, id="nothing past"),
    pytest.param({"old": tuple("abcdefgh"), "new": ("x",)}, id="one donor for all"),
    pytest.param({"old": ("a",), "new": ("x",)}, id="two classes"),
    pytest.param({"grid": ExponentGrid(exponent=-9)}, id="not normalised"),
    pytest.param({"each": 300}, id="donors of several blocks"),
]


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
    found = class_centroids(rows.labels, rows.classes, rows.blocks())
    classes = classes_of(rows.classes, found, merge(problem.before.centroids, found), rule)

    moments = moments_of(rows.labels, rows.blocks(), classes, unit(problem.before.grid), torch.device("cpu"))

    z, names = problem.pseudo(rule, normalise=False)
    centred = z.copy()
    for i, name in enumerate(classes.names):
        chosen = names == name
        mean = z[chosen].mean(axis=0)
        centred[chosen] -= mean
        assert moments.counts[i] == chosen.sum()
        assert moments.means[i].numpy() == pytest.approx(mean, rel=1e-8)
    gram, scatter = z.T @ z, centred.T @ centred
    assert np.linalg.norm(moments.gram().numpy() - gram) <= 1e-8 * np.linalg.norm(gram)
    assert np.linalg.norm(moments.scatter.numpy() - scatter) <= 1e-8 * np.linalg.norm(scatter)


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


@given(st.integers(0, 10**6), st.sampled_from(["cosine", "euclidean"]))
@settings(deadline=None, max_examples=30)
def test_chooses_the_donor_that_a_search_of_all_pairs_finds(seed, rule):
    rng = np.random.default_rng(seed)
    past, new = rng.standard_normal((6, 5)), rng.standard_normal((4, 5))

    found = choose(past, new, rule)

    best = [max(range(4), key=lambda j: nearness(p, new[j], rule)) for p in past]
    assert found.index.tolist() == best
    assert found.cosine == pytest.approx(
        [nearness(p, new[j], "cosine") for p, j in zip(past, best, strict=True)]
    )
    assert -found.distance == pytest.approx(
        [nearness(p, new[j], "euclidean") for p, j in zip(past, best, strict=True)]
    )


@pytest.mark.parametrize("rule", ["cosine", "euclidean"])
def test_gives_equal_candidates_to_the_first_label_key(rule):
    rng = np.random.default_rng(0)
    for width in (3, 17, 384):
        twin = rng.standard_normal(width)
        new = np.stack([rng.standard_normal(width) + 9, twin, twin, twin])

        assert choose(twin[None] * 1.1, new, rule).index.tolist() == [1]


def test_can_take_another_donor_by_distance_than_by_angle():
    new = np.array([[0.9, 0.1], [10.0, 0.0]])
    past = np.array([[1.0, 0.0]])

    assert choose(past, new, "cosine").index.tolist() == [1]
    assert choose(past, new, "euclidean").index.tolist() == [0]


def test_finds_no_angle_to_a_centroid_of_zeros():
    found = choose(np.zeros((1, 2)), np.array([[1.0, 0.0], [0.0, 0.0]]), "cosine")

    assert found.index.tolist() == [0]
    assert found.cosine.tolist() == [0.0]


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

    found = scores(after.head, after.grid, quantise(x, "normalised")[0]).argmax(axis=1)

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


def test_takes_a_pseudo_row_that_cancels_to_zero_as_one_without_direction():
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])

    inverse = translation.inverse_lengths(rows, np.array([[0.0, 0.0], [-1.0, -2.0], [-3.0, -4.0]]))

    assert inverse == pytest.approx(np.array([[5**-0.5, 0.2], [0.0, 8**-0.5], [8**-0.5, 0.0]]))


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
