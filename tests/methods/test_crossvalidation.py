"""The ridge by generalised cross-validation against the hat matrix, and against rational numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.parts import crossvalidation
from app.methods.parts.crossvalidation import GRID, choose_k, estimates, problem_of
from app.methods.parts.ridge import ridge_exponent
from app.methods.parts.ridge_score import Interval, Problem, Score, prove_freedom, prove_residual
from app.methods.parts.rounding import Undecided
from app.methods.parts.statistics import Statistics
from tests.methods.summed import BITS, rows_of, summed


def gcv_by_hand(z: np.ndarray, targets: np.ndarray, alpha: float) -> float:
    """From the hat matrix."""
    centred, n = z - z.mean(0), len(z)
    hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(z.shape[1]), centred.T) + 1 / n
    return float(((targets - hat @ targets) ** 2).sum() / (n - np.trace(hat)) ** 2)


@pytest.mark.parametrize("real", [True, False])
def test_gcv_scores_are_those_of_the_hat_matrix(real):
    x, y = rows_of(13, 120, 8, 3)
    t = np.rint(x[:, 0] + x[:, 1] ** 2 / 900).astype(np.int64)
    s = summed(x, y * 0, t) if real else summed(x, y)
    z, targets = x / 2**BITS, t[:, None] if real else np.eye(3)[y]
    j = ridge_exponent(s, np.ones(8, bool))

    scores = {k: (score.low + score.high) / 2 for k, score in estimates(problem_of(s)).items()}

    expected = {k: gcv_by_hand(z, targets, 2.0 ** (j + k) / 120 / 4**BITS) for k in GRID}
    assert [scores[k] / scores[0] for k in GRID] == pytest.approx(
        [expected[k] / expected[0] for k in GRID], rel=1e-9
    )
    assert choose_k(s) == min(expected, key=lambda k: (expected[k], -k))


def test_gcv_chooses_a_weak_ridge_for_clean_targets_and_a_strong_one_for_noise():
    x, y = rows_of(14, 200, 10, 2)
    rng = np.random.default_rng(0)
    clean = np.rint(x @ rng.standard_normal(10) / 10 + rng.standard_normal(200) * 60).astype(np.int64)
    noise = rng.integers(-1000, 1000, 200)

    weak, strong = (choose_k(summed(x, y * 0, t)) for t in (clean, noise))

    assert weak < -4 < strong


def test_gcv_fits_targets_that_are_nearly_noiseless_as_closely_as_its_range_allows():
    x, y = rows_of(16, 300, 12, 2)
    slope = np.random.default_rng(1).standard_normal(12)
    s = summed(x, y * 0, np.rint(x @ slope * 100).astype(np.int64))  # the noise is the rounding

    assert choose_k(s) == GRID[0]


def two_rows() -> Statistics:
    """Whatever the ridge, each of two rows is predicted as badly from the other: every score is the same."""
    return summed(np.array([[3, 1, 4], [1, 5, 9]]), np.array([0, 1]))


def test_gcv_takes_the_largest_k_among_equals():
    proven = {k: proven_score(problem_of(two_rows()), k) for k in GRID}
    assert max(score.high for score in proven.values()) < min(score.low for score in proven.values()) * 1.0001

    assert choose_k(two_rows()) == GRID[-1]


def test_gcv_takes_the_largest_k_where_nothing_is_left_to_explain():
    x, _ = rows_of(15, 30, 3, 2)
    assert choose_k(summed(x, np.zeros(30))) == GRID[-1]  # one class


def test_gcv_refuses_two_ridges_that_are_equal_within_rounding(monkeypatch):
    monkeypatch.setattr(crossvalidation, "TIE", 0.0)
    with pytest.raises(Undecided, match="two ridges are equal within rounding"):
        choose_k(two_rows())


def proven_score(problem: Problem, k: int) -> Score:
    start = Score(Interval(0, np.inf), Interval(-np.inf, np.inf))
    return prove_freedom(problem, k, prove_residual(problem, k, start))


def rational_score(problem: Problem, k: int) -> Fraction:
    """By Gaussian elimination in exact rationals: the weights and the inverse side by side."""
    width, n = len(problem.gram), problem.rows
    ridge = Fraction(2) ** (problem.exponent + k)
    gram, cross = problem.gram.astype(int).tolist(), problem.cross.astype(int).tolist()
    total, targets = problem.total.astype(int).tolist(), problem.targets.astype(int).tolist()
    right = [
        [n * q - s * t for q, t in zip(row, targets, strict=True)]
        for row, s in zip(cross, total, strict=True)
    ]
    rows = [
        [Fraction(n * gram[i][j] - total[i] * total[j]) + (ridge if i == j else 0) for j in range(width)]
        + [Fraction(v) for v in right[i]]
        + [Fraction(int(i == j)) for j in range(width)]
        for i in range(width)
    ]
    for i in range(width):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(width):
            if j != i:
                rows[j] = [v - rows[j][i] * w for v, w in zip(rows[j], rows[i], strict=True)]
    outputs = len(targets)
    weights = [row[width : width + outputs] for row in rows]
    trace = sum(rows[i][width + outputs + i] for i in range(width))
    explained = sum(
        w * (r + ridge * w) for a, b in zip(weights, right, strict=True) for w, r in zip(a, b, strict=True)
    )
    left = n - 1 - width + ridge * trace
    return Fraction(problem.variance - explained) / (left * left)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 12), st.booleans(), st.sampled_from(GRID))
def test_what_a_score_lies_between_holds_the_rational_score(seed, width, rows, real, k):
    rng = np.random.default_rng(seed)
    x = rng.integers(-900, 900, (rows, width)) + 5000 * rng.integers(0, 2)
    x[:, -1] = x[:, 0]  # the same feature twice
    x[0] += 1  # and each varies
    slope = rng.integers(-9, 9, width)
    s = summed(x, np.zeros(rows), x @ slope) if real else summed(x, np.arange(rows) % 2)
    problem = problem_of(s)

    exact = rational_score(problem, k)

    estimate, proven = estimates(problem)[k], proven_score(problem, k)
    for score in (estimate, proven):
        assert score.low <= exact <= score.high
    assert proven.high - proven.low <= 1e-8 * exact


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(3, 40), st.sampled_from([0.0, 0.01, 1.0]))
def test_the_k_is_that_of_proven_scores_however_little_float64_tells(seed, width, rows, noise):
    rng = np.random.default_rng(seed)
    x = rng.integers(-900, 900, (rows, width))
    t = x @ rng.integers(-9, 9, width) + np.rint(900 * noise * rng.standard_normal(rows)).astype(np.int64)
    s = summed(x, np.zeros(rows), t)
    chosen = choose_k(s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossvalidation, "BACKWARD", 2.0**60)
        assert choose_k(s) == chosen
