"""Every closed form worked out from the rows in rational arithmetic, and rounded once."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.parts.bayes import naive_bayes
from app.methods.parts.discriminant import discriminant
from app.methods.parts.ridge import regression, ridge
from app.methods.parts.statistics import accumulate
from tests.methods.summed import BITS, HEADS, RHO, rows_of, summed

Matrix = list[list[Fraction]]


def total(values: Iterable[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def solve(a: Matrix, right: Matrix) -> Matrix:
    """Gauss and Jordan, in rationals."""
    rows = [[*row, *more] for row, more in zip(a, right, strict=True)]
    for i in range(len(rows)):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(len(rows)):
            if j != i:
                rows[j] = [v - rows[j][i] * w for v, w in zip(rows[j], rows[i], strict=True)]
    return [row[len(a) :] for row in rows]


def nearest(value: Fraction) -> np.float32:
    guess = np.float32(float(value))
    around = (guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf)))
    return min(around, key=lambda v: abs(Fraction(float(v)) - value))


def moments(x: np.ndarray, y: np.ndarray) -> tuple[int, int, list[int], Matrix, Matrix]:
    """n, classes, counts, class means, scatter within classes."""
    width, classes = x.shape[1], int(y.max()) + 1
    rows = [[Fraction(int(v)) for v in row] for row in x]
    of = [[row for row, label in zip(rows, y, strict=True) if label == c] for c in range(classes)]
    mu = [[total(row[j] for row in group) / len(group) for j in range(width)] for group in of]
    scatter = [
        [
            total((row[i] - mu[c][i]) * (row[j] - mu[c][j]) for c in range(classes) for row in of[c])
            for j in range(width)
        ]
        for i in range(width)
    ]
    return len(x), classes, [len(group) for group in of], mu, scatter


def rational(kind: str, x: np.ndarray, y: np.ndarray) -> tuple[Matrix, list[Fraction]]:
    """Weights (classes, width) per step and biases, from the rows, in rationals."""
    n, classes, counts, mu, scatter = moments(x, y)
    width, every = len(scatter), range(len(scatter))
    if kind == "bayes":
        mean = total(scatter[j][j] for j in every) / width / n
        v = [scatter[j][j] / n + mean / 100 for j in every]
        weight = [[mu[c][j] / v[j] for j in every] for c in range(classes)]
        return weight, [-total(mu[c][j] * weight[c][j] for j in every) / 2 for c in range(classes)]
    if kind == "discriminant":
        trace = total(scatter[j][j] for j in every)
        a = [
            [
                (1 - RHO) * scatter[i][j] / n + (RHO * trace / n / width if i == j else Fraction(0))
                for j in every
            ]
            for i in every
        ]
        solved = solve(a, [[mu[c][j] for c in range(classes)] for j in every])
        weight = [[solved[j][c] for j in every] for c in range(classes)]
        return weight, [-total(mu[c][j] * weight[c][j] for j in every) / 2 for c in range(classes)]
    share = [Fraction(c, n) if kind == "ridge" else Fraction(1, classes) for c in counts]
    m = [total(p * mu[c][j] for c, p in enumerate(share)) for j in every]
    all_mean = [total(Fraction(counts[c], n) * mu[c][j] for c in range(classes)) for j in every]
    diagonal = [
        scatter[j][j] + total(counts[c] * (mu[c][j] - all_mean[j]) ** 2 for c in range(classes))
        for j in every
    ]
    size = total(diagonal) * n / width  # the mean diagonal of n G - s s^T
    power = Fraction(1)
    while power * 2 <= size:
        power *= 2
    a = [
        [
            scatter[i][j]
            + total(n * share[c] * (mu[c][i] - m[i]) * (mu[c][j] - m[j]) for c in range(classes))
            + (power / 16 / n if i == j else Fraction(0))
            for j in every
        ]
        for i in every
    ]
    right = [[n * share[c] * (mu[c][j] - m[j]) for c in range(classes)] for j in every]
    solved = solve(a, right)
    weight = [[solved[j][c] for j in every] for c in range(classes)]
    return weight, [share[c] - total(m[j] * weight[c][j] for j in every) for c in range(classes)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(2, 4),
    st.integers(6, 25),
    st.sampled_from(list(HEADS)),
)
def test_is_the_rational_head_rounded_once(seed, width, classes, rows, kind):
    x, y = rows_of(seed, max(rows, 2 * classes + 1), width, classes)

    found = HEADS[kind](summed(x, y))
    weight, bias = rational(kind, x, y)

    for c in range(classes):
        column = [w * 2**BITS for w in weight[c]]
        line = max(map(abs, column)) / 2**60
        expected = [np.float32(0) if abs(v) < line else nearest(v) for v in column]
        assert found.weight[c].tolist() == [float(v) for v in expected]
        assert found.bias[c] == nearest(bias[c])


@pytest.mark.parametrize("bits", [-40, -28, 28, 40])
@pytest.mark.parametrize("kind", ["ridge", "discriminant", "bayes"])
def test_the_unit_of_the_grid_changes_the_weights_by_that_power_of_two_and_no_bias(kind, bits):
    x, y = rows_of(3, 60, 8, 4)
    at_one = {
        "ridge": lambda s, step: ridge(s, -4, step),
        "discriminant": lambda s, step: discriminant(s, RHO, step),
        "bayes": lambda s, step: naive_bayes(s, Fraction(1, 100), step),
    }[kind]
    statistics = summed(x, y)

    plain, scaled = at_one(statistics, 0), at_one(statistics, bits)

    assert plain.weight.any()
    assert np.array_equal(scaled.weight, np.ldexp(plain.weight, bits))
    assert np.array_equal(scaled.bias, plain.bias)


@pytest.mark.parametrize("seed", range(12))
def test_decides_a_bias_that_lies_halfway_between_two_floats(seed):
    rng = np.random.default_rng(seed)
    x = np.repeat([[1], [-1]], 16, axis=0)
    targets = rng.integers(2**19, 2**20, 32)
    targets[0] += 1 - targets.sum() % 2  # an odd sum of 25 bits over 2**5

    statistics = accumulate(("",), np.zeros(32, np.int64), [x], 1, targets=targets)
    head = regression(statistics, -4, 0, 0)

    value = Fraction(int(targets.sum()), 32)
    distance = abs(Fraction(float(head.bias[0])) - value)
    around = [Fraction(float(np.nextafter(head.bias[0], np.float32(way)))) for way in (-np.inf, np.inf)]
    assert all(distance <= abs(other - value) for other in around)


def test_decides_a_bias_of_zero_whose_terms_cancel():
    """Features of mean one, one without any say, and targets that sum to what the other explains: b = 0."""
    x = np.array([[0, 1], [2, 1], [0, -1], [2, -1]] * 4)
    targets = np.array([3, 3, -3, -3] * 4)

    statistics = accumulate(("",), np.zeros(16, np.int64), [x], 2, targets=targets)
    head = regression(statistics, -4, 0, 0)

    assert head.weight[0, 0] == 0
    assert head.weight[0, 1] > 0
    assert head.bias.tolist() == [0.0]
