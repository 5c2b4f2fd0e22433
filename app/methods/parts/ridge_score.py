"""The GCV score of one ridge with a proven bound, from integers: as good on any machine.

`A = n G - s s^T`, `W = (A + r I)^-1 R`, `R = n Q - s t^T`. The residual times n is `v - <W, R> - r <W, W>`, v
the variance of the targets times n^2, in double-double from weights with a proven bound (`refined_solve`).
The degrees of freedom that are left are `n - 1 - d + r trace (A + r I)^-1`. With X the inverse in float64 and
`E = I - (A + r I) X` from products that are each exact (`slicing`), `trace (A + r I)^-1 = trace X + <X, E> +
rest`, and the rest, `trace E^T (A + r I)^-1 E`, lies between 0 and `|E|^2 / r`.

Cost: a Cholesky factorisation, an inverse and six products of width x width. Memory: 48 width^2 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import fsum, inf, sqrt
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT, Array
from app.methods.parts.refined_solve import Solution, System, solve
from app.methods.parts.rounding import Undecided
from app.methods.parts.slicing import (
    PRODUCT_ERROR,
    SAFETY,
    Digits,
    norms,
    product,
    reach_of,
    slice_columns,
    squares,
)

BLOCK = 128  # rows and columns of the rest at once
DIGITS = 3  # of the inverse: more than the 53 bits of its entries
ENOUGH = 2.0**-50  # a bound so much below the residual is not made smaller


class Interval(NamedTuple):
    """What a number lies between."""

    low: float
    high: float


@dataclass(frozen=True)
class Problem:
    """Ridge systems over the features that vary; all arrays hold integers."""

    rows: int
    gram: Array  # (width, width)
    total: Array  # (width,)
    cross: Array  # (width, outputs)
    targets: Array  # (outputs,) sums of the targets
    variance: int  # of the targets, times rows^2
    exponent: int  # of the ridge with k = 0, a power of two

    def ridge(self, k: int) -> float:
        return float(2.0 ** (self.exponent + k))

    @property
    def total_square(self) -> float:
        return float(np.linalg.norm(self.total) ** 2)

    @cached_property
    def right(self) -> DD:
        """R, (width, outputs)."""
        first = dd.two_product(np.asarray(float(self.rows)), self.cross)
        return dd.add(first, -dd.two_product(self.total[:, None], self.targets[None]))

    def centred(self) -> Array:
        """A, (width, width), rounded."""
        matrix = self.rows * self.gram
        for i, value in enumerate(self.total):
            matrix[i] -= value * self.total
        return matrix


class Score(NamedTuple):
    """`residual / freedom^2`, for what the two lie between."""

    residual: Interval
    freedom: Interval

    @property
    def low(self) -> float:
        return self.residual.low / self.freedom.high**2 / (1 + 8 * UNIT)  # the roundings of these operations

    @property
    def high(self) -> float:
        return self.residual.high / self.freedom.low**2 * (1 + 8 * UNIT) if self.freedom.low > 0 else inf


def prove_residual(problem: Problem, k: int, score: Score) -> Score:
    """With a residual that is proven: a solve. Raises `Undecided` where the ridge is too small for one."""
    return score._replace(residual=_residual(problem, problem.ridge(k)))


def prove_freedom(problem: Problem, k: int, score: Score) -> Score:
    """With degrees of freedom that are proven: an inverse, and its products. Raises `Undecided` as above."""
    return score._replace(freedom=_freedom(problem, problem.ridge(k)))


def _residual(problem: Problem, ridge: float) -> Interval:
    system = System(
        gram=problem.gram,
        a=dd.exact(float(problem.rows)),
        columns=problem.total[:, None],
        b=dd.exact(np.array([-1.0])),
        h=dd.exact(np.zeros(1)),
        over=dd.exact(1.0),
        ridge=dd.exact(ridge),
        right=problem.right,
    )
    found = Interval(0.0, inf)
    for solution in solve(system):
        value, error = _residual_of(problem, solution, ridge)
        found = Interval(max(value - error, found.low), min(value + error, found.high))
        if error <= ENOUGH * value:
            break
    return found


def _residual_of(problem: Problem, found: Solution, ridge: float) -> tuple[float, float]:
    """The residual and a bound on its error."""
    right, weights = problem.right, found.weights
    pull = dd.add(right, weights.scaled(ridge))  # R + r W
    explained = dd.total(dd.total(dd.multiply(weights, pull)).T)
    variance = dd.from_fraction(Fraction(problem.variance))
    residual = dd.add(variance, DD(-explained.hi[0, 0], -explained.lo[0, 0]))
    # By Cauchy-Schwarz, column by column; the sums add `SUM` of the magnitudes once a level.
    size, length = norms(right.hi) + ridge * norms(weights.hi), norms(weights.hi)
    levels = sum(n.bit_length() + 1 for n in weights.hi.shape)
    relative = 4 * dd.PRODUCT + (levels + 4) * dd.SUM
    off = found.error * (size + ridge * (length + found.error))
    bound = float((relative * size * length + off).sum()) + 4 * dd.SUM * float(variance.hi)
    value = float(residual.hi)
    return value, (bound + UNIT * abs(value)) * SAFETY


def _freedom(problem: Problem, ridge: float) -> Interval:
    width = len(problem.gram)
    inverse = _inverse(problem, ridge)
    reach = max(reach_of(problem.gram), reach_of(problem.total[None]))
    terms = [float(problem.rows - 1 - width)]
    along = of_inverse = of_rest = unsure = 0.0
    for start in range(0, width, BLOCK):
        columns = dd.exact(inverse[:, start : start + BLOCK])
        digits, beyond = slice_columns(columns, reach, DIGITS)
        x = columns.hi - beyond.hi  # exact: what the digits say
        terms += (ridge * x[start : start + BLOCK].diagonal()).tolist()
        of_inverse += float(squares(x).sum())
        for rest, bound, rows in _rests(problem, ridge, x, digits, start):
            along += float((x[rows] * rest).sum())
            of_rest += float(squares(rest).sum())
            unsure += bound
    size, off, lost = (sqrt(value) * SAFETY for value in (of_inverse, of_rest, unsure))
    lost += UNIT * off
    middle = fsum([*terms, ridge * along])
    slack = ridge * size * (lost + 4 * width * UNIT * off) + 2 * UNIT * abs(middle)
    return Interval(middle - slack, middle + slack + (off + lost) ** 2 * SAFETY)


def _rests(
    problem: Problem, ridge: float, x: Array, digits: Digits, start: int
) -> Iterator[tuple[Array, float, slice]]:
    """`I - (A + r I) X` for the columns x of X from `start` on, some rows at a time, in float64.

    With each its error's square, what rounding to float64 loses not counted, and which rows.
    """
    shared, shared_error = product(problem.total[None], digits)
    for first in range(0, len(x), BLOCK):
        rows = slice(first, first + BLOCK)
        gram, gram_error = product(problem.gram[rows], digits)
        own = dd.multiply(dd.wide(dd.exact(float(problem.rows))), gram)
        pull = dd.multiply(dd.exact(problem.total[rows, None]), shared)
        penalty = dd.exact(ridge * x[rows])
        ones = dd.exact(np.eye(len(penalty.hi), x.shape[1], start - first))
        rest = dd.add(ones, -dd.add(dd.add(own, -pull), penalty))
        size = sum(squares(term.hi) for term in (own, pull, penalty, ones))
        lost = PRODUCT_ERROR * problem.rows * np.sqrt(gram_error)
        lost += PRODUCT_ERROR * sqrt(float(squares(problem.total[rows, None])[0])) * np.sqrt(shared_error)
        lost += (2 * dd.PRODUCT + 4 * dd.SUM) * np.sqrt(4 * size)
        yield rest.hi, float((lost**2).sum()) * SAFETY, rows


def _inverse(problem: Problem, ridge: float) -> Array:
    """Of `A + r I`, in float64."""
    matrix = problem.centred()
    matrix[np.diag_indices(len(matrix))] += ridge
    factor, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if failed:
        raise Undecided("the ridge is too small for these rows: use a model with a fixed k")
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    for i in range(len(lower)):
        lower[i, i + 1 :] = lower[i + 1 :, i]
    inverse: Array = lower
    return inverse
