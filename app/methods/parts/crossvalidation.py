"""The ridge by generalised cross-validation (Golub, Heath & Wahba 1979), as a function of the statistics.

`GCV(lambda) = n |Y - Y^(lambda)|^2 / (n - df)^2`, `df = 1 + sum_i sigma_i / (sigma_i + lambda)`, sigma_i the
eigenvalues of `A = n G - s s^T`. With q_i the squared coordinates of `n Q - s t^T` in the eigenvectors, the
residual is `|Y|^2 - sum_i q_i (sigma_i + 2 lambda) / (sigma_i + lambda)^2`, all times n.

The k that is chosen does not depend on the machine. One eigenvalue problem in float64 gives every score
within an interval; where two may not be told apart by these, the scores in question are computed again with a
proven bound (`ridge_score`), and where that does not tell, nothing is chosen (`Undecided`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import eigh

from app.methods.parts.closed_form import live_gram, varying
from app.methods.parts.double_double import UNIT, Array
from app.methods.parts.ridge import ridge_exponent
from app.methods.parts.ridge_score import Interval, Problem, Score, prove_freedom, prove_residual
from app.methods.parts.rounding import Undecided
from app.methods.parts.statistics import Statistics

GRID = tuple(range(-16, 5))  # of k
TIE = 1e-9
# The backward error of `eigh` and of products with its vectors, in units of `width * UNIT` of the norm. It
# is a fraction of one in practice; LAPACK's own tests fail at 50.
BACKWARD = 64


def choose_k(statistics: Statistics) -> int:
    """The k of `GRID` with the least GCV score; of scores within 1e-9 the largest k.

    Targets without variance are explained by any ridge: the largest. Raises `Degenerate` where no feature
    varies and `Undecided`. Cost: one symmetric eigenvalue problem (some 10 Cholesky factorisations), a
    solve for each k whose score must be computed again, seldom any, and seldom some twenty more.
    """
    problem = problem_of(statistics)
    if not problem.variance:
        return GRID[-1]
    scores = estimates(problem)
    for prove in (prove_residual, prove_freedom):
        chosen = _decided(scores)
        if chosen is not None:
            return chosen
        in_question = [k for k in GRID if not _is_beaten(k, scores)]
        scores |= {k: prove(problem, k, scores[k]) for k in in_question}
    chosen = _decided(scores)
    if chosen is None:
        raise Undecided("two ridges are equal within rounding: use a model with a fixed k")
    return chosen


def estimates(problem: Problem) -> dict[int, Score]:
    """For every k of `GRID` what its score lies between, from float64."""
    n, width = problem.rows, len(problem.gram)
    centred = problem.centred()
    lost = 2 * UNIT * (n * float(np.linalg.norm(problem.gram)) + problem.total_square)
    values, vectors = eigh(centred.T, overwrite_a=True, check_finite=False)
    # Twice: the matrix is positive semidefinite, and so is what is left without negative values.
    epsilon = 2 * (lost + BACKWARD * width * UNIT * max(float(values[-1]), 0.0))
    values = np.maximum(values, 0.0)
    right = problem.right.hi
    turned = BACKWARD * width * UNIT * float(np.linalg.norm(right))
    squared = ((vectors.T @ right) ** 2).sum(axis=1)
    # No more eigenvalues than this are above 0; `n - df` without the others is a sum of one sign.
    rank = min(width, n - 1)
    found = {}
    for k in GRID:
        ridge = problem.ridge(k)
        residual = _residual(problem, values, squared, ridge, epsilon, turned)
        freedom = n - 1 - rank + float((ridge / (values[-rank:] + ridge)).sum())
        slack = freedom * (epsilon / ridge + 4 * width * UNIT)
        found[k] = Score(residual, Interval(freedom - slack, freedom + slack))
    return found


def problem_of(statistics: Statistics) -> Problem:
    """The ridge system of these statistics, one-hot or real targets. Raises `Degenerate`."""
    live = varying(statistics)
    n = statistics.rows
    if statistics.targets is not None:
        t = statistics.targets
        cross, sums, variance = t.cross[None], np.array([t.total]), n * t.squares - t.total**2
    else:
        cross, sums = statistics.sums, statistics.counts
        variance = sum(c * (n - c) for c in statistics.counts.tolist())
    return Problem(
        rows=n,
        gram=live_gram(statistics, live),
        total=statistics.total()[live].astype(np.float64),
        cross=cross[:, live].T.astype(np.float64),
        targets=sums.astype(np.float64),
        variance=variance,
        exponent=ridge_exponent(statistics, live),
    )


def _residual(
    problem: Problem, values: Array, squared: Array, ridge: float, epsilon: float, turned: float
) -> Interval:
    """What the targets' variance exceeds the explained by, both times n.

    A change of A by epsilon changes it by at most `4 epsilon |W|^2` while `epsilon <= ridge / 4`, one of the
    coordinates by `turned` by at most `4 turned |W| + 2 turned^2 / ridge`, W the weights.
    """
    if epsilon > ridge / 4:
        return Interval(0.0, float(problem.variance))
    weights = float((squared / (values + ridge) ** 2).sum())
    explained = float((squared * (values + 2 * ridge) / (values + ridge) ** 2).sum())
    variance = float(problem.variance)
    slack = 4 * epsilon * weights + 4 * turned * weights**0.5 + 2 * turned**2 / ridge
    slack += 8 * len(values) * UNIT * (variance + explained)
    return Interval(max(variance - explained - slack, 0.0), max(variance - explained + slack, 0.0))


def _decided(scores: dict[int, Score]) -> int | None:
    """The largest k that no other beats, where the intervals tell."""
    for k in reversed(GRID):
        if not _is_beaten(k, scores):
            ahead = all(scores[k].high <= other.low * (1 + TIE) for other in _others(k, scores))
            return k if ahead else None
    return None


def _is_beaten(k: int, scores: dict[int, Score]) -> bool:
    return any(scores[k].low > other.high * (1 + TIE) for other in _others(k, scores))


def _others(k: int, scores: dict[int, Score]) -> Iterator[Score]:
    return (score for other, score in scores.items() if other != k)
