"""Heads in closed form against float64 formulas and scikit-learn, and what odd rows and features come to."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from app.methods.parts.bayes import naive_bayes
from app.methods.parts.closed_form import Degenerate
from app.methods.parts.discriminant import discriminant, nearest_mean
from app.methods.parts.ridge import balanced_ridge, regression, ridge, ridge_exponent
from app.methods.parts.rounding import Undecided
from app.methods.parts.statistics import Statistics
from tests.methods.summed import BITS, HEADS, RHO, assert_near, rows_of, summed

each_head = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)


def test_ridge_is_the_centred_ridge_of_scikit_learn():
    x, y = rows_of(0, 300, 20, 5)
    found = ridge(summed(x, y), -4, BITS)
    assert found.ridge_exponent is not None

    alpha = 2.0**found.ridge_exponent / len(x) / 4**BITS
    peer = Ridge(alpha=alpha, solver="cholesky").fit(x / 2**BITS, np.eye(5)[y])

    assert_near(found, peer.coef_, peer.intercept_)


def test_balanced_ridge_weighs_pooled_scatter_and_class_means():
    x, y = rows_of(1, 300, 20, 5)
    found = balanced_ridge(summed(x, y), -4, BITS)
    assert found.ridge_exponent is not None
    z, n = x / 2**BITS, len(x)
    mu = np.stack([z[y == c].mean(0) for c in range(5)])
    scatter = sum(((z[y == c] - mu[c]).T @ (z[y == c] - mu[c]) for c in range(5)), np.zeros((20, 20)))
    m, alpha = mu.mean(0), 2.0**found.ridge_exponent / n / 4**BITS

    system = scatter + n / 5 * (mu - m).T @ (mu - m) + alpha * np.eye(20)
    weight = np.linalg.solve(system, n / 5 * (mu - m).T).T

    assert_near(found, weight, 1 / 5 - weight @ m)


def test_balanced_ridge_is_the_plain_one_where_classes_are_balanced():
    x, _ = rows_of(2, 60, 6, 3)
    y = np.arange(60) % 3

    one, other = ridge(summed(x, y), -4, BITS), balanced_ridge(summed(x, y), -4, BITS)

    assert one.weight.tobytes() == other.weight.tobytes()
    assert one.bias.tobytes() == other.bias.tobytes()


def test_discriminant_is_the_shrunk_one_of_scikit_learn():
    x, y = rows_of(3, 300, 20, 5)
    z, share = x / 2**BITS, np.bincount(y) / len(y)

    found = discriminant(summed(x, y), RHO, BITS)

    # scikit-learn pools scatters by the priors; ours are equal afterwards
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=share).fit(z, y)
    assert_near(found, peer.coef_, peer.intercept_ - np.log(share))


def test_naive_bayes_has_one_variance_per_feature():
    x, y = rows_of(4, 300, 20, 5)
    z = x / 2**BITS
    mu = np.stack([z[y == c].mean(0) for c in range(5)])
    variance = ((z - mu[y]) ** 2).mean(0)
    variance += 0.01 * variance.mean()

    found = naive_bayes(summed(x, y), Fraction(1, 100), BITS)

    assert_near(found, mu / variance, -(mu**2 / variance).sum(1) / 2)


def test_regression_is_the_centred_ridge_of_scikit_learn():
    x, y = rows_of(5, 300, 20, 5)
    t = np.rint(x[:, 0] / 3 - x[:, 1] / 5 + 100 * y).astype(np.int64)
    found = regression(summed(x, y * 0, t), -8, BITS, target_exponent=-3)
    assert found.ridge_exponent is not None

    alpha = 2.0**found.ridge_exponent / len(x) / 4**BITS
    peer = Ridge(alpha=alpha, solver="cholesky").fit(x / 2**BITS, t / 8)

    assert_near(found, peer.coef_[None], np.array([peer.intercept_]))


@each_head
def test_does_not_see_the_order_of_rows_or_classes(make):
    x, y = rows_of(6, 80, 9, 4)
    order = np.random.default_rng(0).permutation(80)
    names = np.array([2, 0, 3, 1])  # class c is now called names[c]

    one, other = make(summed(x, y)), make(summed(x[order], names[y[order]]))

    assert one.weight.tobytes() == other.weight[names].tobytes()
    assert one.bias.tobytes() == other.bias[names].tobytes()


@each_head
@pytest.mark.parametrize("constant", [0, 1234])
def test_a_feature_that_never_varies_weighs_nothing_and_changes_nothing(make, constant):
    x, y = rows_of(7, 80, 6, 3)
    wide = np.insert(x, 2, constant, axis=1)

    plain, found = make(summed(x, y)), make(summed(wide, y))

    assert not found.weight[:, 2].any()
    assert np.delete(found.weight, 2, axis=1).tobytes() == plain.weight.tobytes()
    assert found.bias.tobytes() == plain.bias.tobytes()


@each_head
def test_a_feature_without_any_say_weighs_exactly_zero(make):
    x, y = rows_of(8, 80, 4, 3)
    mirrored = np.concatenate([np.insert(x, 0, v, axis=1) for v in (500, -500)])  # uncorrelated, mean zero

    found = make(summed(mirrored, np.tile(y, 2)))

    assert not found.weight[:, 0].any()
    assert found.weight[:, 1:].all()


def test_classes_of_one_mean_have_no_weights():
    x = np.array([[3, 100], [-3, 301], [9, 201], [-9, 200], [0, 202], [0, 199]] * 2)
    y = np.array([0, 0, 1, 1, 2, 2] * 2)  # the means of both features are equal by class, or not by class 0

    found = balanced_ridge(summed(x[:, :1], y), -4, BITS)

    assert found.weight.tolist() == [[0.0], [0.0], [0.0]]
    assert found.bias.tolist() == [np.float32(1 / 3)] * 3


def test_a_single_class_is_all_bias():
    x, _ = rows_of(9, 20, 3, 2)
    for head in (ridge(summed(x, np.zeros(20)), -4, BITS), balanced_ridge(summed(x, np.zeros(20)), -4, BITS)):
        assert not head.weight.any()
        assert head.bias.tolist() == [1.0]


def test_takes_more_classes_than_features():
    x, y = rows_of(10, 400, 3, 90)
    z = x / 2**BITS
    mu = np.stack([z[y == c].mean(0) for c in range(90)])
    covariance = (z - mu[y]).T @ (z - mu[y]) / 400
    weight = mu @ np.linalg.inv(0.7 * covariance + 0.1 * np.trace(covariance) * np.eye(3))

    assert_near(discriminant(summed(x, y), RHO, BITS), weight, -(weight * mu).sum(1) / 2)


def test_refuses_a_ridge_that_decides_nothing():
    x, y = rows_of(11, 30, 8, 3)
    x[:, 1] = x[:, 0]
    with pytest.raises(Undecided, match="ridge"):
        ridge(summed(x, y), -140, BITS)


@each_head
def test_refuses_rows_that_do_not_vary(make):
    with pytest.raises(Degenerate):
        make(summed(np.full((4, 3), 7), np.array([0, 0, 1, 1])))


@pytest.mark.parametrize("name", ["discriminant", "bayes"])
def test_refuses_one_row_per_class_where_it_needs_a_covariance(name):
    x, _ = rows_of(12, 6, 4, 3)
    with pytest.raises(Degenerate):
        HEADS[name](summed(x, np.arange(6)))


def test_naive_bayes_rounds_quotients_that_lie_halfway_to_even():
    mean, spread = 2**24 + 1, 2**20  # 4 rows of mean 2**24 + 1, and a variance of a power of two
    statistics = Statistics(
        ("a",),
        np.array([4]),
        np.array([[4 * mean]]),
        np.array([[4 * (mean**2 + spread)]]),
        np.array([4 * (mean**2 + spread)]),
    )

    found = naive_bayes(statistics, Fraction(1), 0)

    assert found.weight[0, 0] == np.float32(2.0**24 / (2 * spread))


def test_nearest_mean_is_the_means():
    sums, counts = np.array([[3, 8], [-5, 0]]), np.array([3, 2])
    found = nearest_mean(sums, counts, 1)
    assert found.weight == pytest.approx(np.array([[0.5, 4 / 3], [-1.25, 0]]), rel=1e-7)
    assert found.bias == pytest.approx([-(0.25 + 16 / 9) / 2, -(1.25**2) / 2], rel=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_ridge_is_relative_to_the_largest_power_of_two_below_the_mean_diagonal(seed):
    x, y = rows_of(seed, 30, 4, 2)
    s = summed(x, y)
    trace = 30 * int((x**2).sum()) - int((x.sum(0) ** 2).sum())

    j = ridge_exponent(s, np.ones(4, bool))

    assert 2**j * 4 <= trace < 2 ** (j + 1) * 4
