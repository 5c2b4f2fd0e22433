"""Correctly rounded solutions of integer ridge systems: the same float32 on any machine.

A float64 solve differs in its last bits between thread counts, processors and orders of the rows. The
solution does not: it is a function of integers. So solve in any way that is fast, then bound the distance to
the true solution until no float32 is left undecided.

The system is `A W = R`, `A = a G + U B U^T + r I` with G (width, width) and U (width, m) integer, `B =
diag(b) - h h^T / over`, `a G + U B U^T` positive semidefinite and `r > 0`. So `A` is at least `r`, and a
column x is off by at most `|R - A x| / r`. That residual is computed in double-double from products that are
each exact (`slicing`), with a bound on what its additions lose. Numbers lie between 2**-500 and 2**500, so
that nothing under- or overflows.

Cost at width d with C columns: one Cholesky factorisation (d^3 / 3 multiply-adds) and a triangular solve
(d^2 C); each round another and three (one digit of W) or five (two) d x d x C products. Memory beside the
system: 8 d^2 bytes of the factor, and blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, log2
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, blas, cho_factor, cho_solve

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT, Array
from app.methods.parts.rounding import Undecided, round_to_float32
from app.methods.parts.slicing import (
    PRODUCT_ERROR,
    SAFETY,
    Digits,
    digit_gain,
    frobenius,
    matmul,
    norms,
    product,
    reach_of,
    slice_columns,
    squares,
)

ROUNDS = 8  # far more than an ordinary ridge needs; a round that does not halve the bound is the last
LOW_RANK_BITS = 104
MOST_DIGITS = 6  # more than the 106 bits of a double-double
LIKELY = 0.5  # entries that may be expected to stay undecided after the first round
COLUMNS = 256  # of a residual at a time
BLOCK = 256  # rows of a residual at a time: what is computed of them stays in the cache
ACCURATE = 2.0**-60  # relative bound of a column beyond which the ridge is not to blame
TOO_SMALL = "the ridge is too small for this system: use a model with a larger one"
T = TypeVar("T")


@dataclass(frozen=True)
class System:
    """`(a G + U (diag(b) - h h^T / over) U^T + r I) W = R`; what is not integer is a double-double."""

    gram: Array  # (width, width) integers, |entries| < 2**53
    a: DD
    columns: Array  # U: (width, m) integers, |entries| < 2**53
    b: DD  # (m,)
    h: DD  # (m,)
    over: DD  # positive
    ridge: DD
    right: DD  # (width, classes)
    relative_error: float = 4 * dd.PRODUCT  # of each number above that is not an integer
    right_error: Array | float = 0.0  # (classes,): what the right side's columns are off beyond that


@dataclass(frozen=True)
class Solution:
    """Weights in double-double and a bound on the 2-norm of each column's error."""

    weights: DD  # (width, classes)
    error: Array  # (classes,)
    rounds: int = 1  # of refinement that it took


def until_decided(system: System, rounding: Callable[[Solution], T | None]) -> T:
    """What `rounding` makes of the first solution that is good enough for it; it gives None for the others.

    Raises `Undecided`.
    """
    found: Solution | None = None
    for found in solve(system):
        rounded = rounding(found)
        if rounded is not None:
            return rounded
    if found is None or (found.error > ACCURATE * norms(found.weights.hi)).any():
        raise Undecided(TOO_SMALL)
    raise Undecided("a value lies on a rounding boundary, halfway between two float32, or too near one")


def rounded_weights(found: Solution, scale: float = 1.0) -> NDArray[np.float32] | None:
    """(width, classes): the weights times a power of two, correctly rounded; None where one is undecided."""
    return round_to_float32(found.weights.scaled(scale), found.error * scale)


def solve(system: System, digits: int | None = None) -> Iterator[Solution]:
    """Ever better solutions; each costs a residual and a triangular solve. Raises `Undecided`.

    A round cuts x to few digits (`base`; what is cut off, the correction finds again), takes the residual of
    that and adds a float64 correction. `R - A (base + step)` is `left` and what rounded on the way to it.
    The first has `digits`, or as many as are likely to do; every other has two more.
    """
    residual = _Residual(system)
    factor = _Factor(system)
    first = digits or _digits_at_first(system, residual.reach, factor.loss)
    x, before = dd.exact(factor.solve(system.right.hi)), np.inf
    for rounds in range(1, ROUNDS + 1):
        cut, _ = slice_columns(x, residual.reach, min(first + 2 * (rounds - 1), MOST_DIGITS))
        base = cut.value()
        rest, bound = residual(base, cut)
        step = factor.solve(rest.hi)
        left, loss = factor.remainder(rest.hi, step)
        x = dd.add_float(base, step)
        error = norms(left) + norms(rest.lo) + bound + loss + system.right_error
        # Adding the step, and putting `base` together from its digits, rounds by entry.
        error = error / system.ridge.hi + (len(cut.units) + 1) * dd.SUM * norms(x.hi)
        yield Solution(x, error * SAFETY, rounds)
        if float(error.max(initial=0.0)) > before / 2:
            return
        before = float(error.max(initial=0.0))


def _digits_at_first(system: System, reach: float, loss: float) -> int:
    """So many that a bound like `loss` of the correction leaves hardly an entry undecided.

    An entry is some `1 / sqrt(width)` of its column and beside a boundary within a bound with a chance of
    some 2**28 times the bound over it. This only decides what is tried first.
    """
    width, classes = system.right.hi.shape
    gain, undecided = digit_gain(width, reach), 2.0**28 * width**1.5 * classes * loss / float(system.ridge.hi)
    return min(max(1, ceil(log2(undecided / LIKELY) / log2(gain))), MOST_DIGITS)


class _Residual:
    """`R - A W` for a W given by its digits, with a bound on its error by column."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.frobenius = frobenius(system.columns)
        self.largest, self.pull = _sizes(system)
        self.reach = max(reach_of(system.gram), reach_of(system.columns.T))
        self.outer_reach = reach_of(system.columns)

    def __call__(self, x: DD, digits: Digits) -> tuple[DD, Array]:
        """Some columns at a time: `U^T W` is as wide, and has as many rows as U has columns."""
        if x.hi.shape[1] <= COLUMNS:
            return self._of(x, digits, self.system.right)
        rest, bound = DD(np.empty_like(x.hi), np.empty_like(x.hi)), np.empty(x.hi.shape[1])
        for first in range(0, len(bound), COLUMNS):
            some = slice(first, first + COLUMNS)
            found, bound[some] = self._of(
                x.columns(some), digits.columns(some), self.system.right.columns(some)
            )
            rest.hi[:, some], rest.lo[:, some] = found
        return rest, bound

    def _of(self, x: DD, digits: Digits, right: DD) -> tuple[DD, Array]:
        """Every term's own relative error, and `dd.SUM` of a partial sum for each of the three additions.

        A partial sum is at most the sum of its terms, whose norms add up to at most the root of 4 times their
        squares.
        """
        system, shape = self.system, x.hi.shape
        rest = DD(np.empty(shape), np.empty(shape))
        size, gram_error, outer_error = np.zeros((3, shape[1]))
        pieces, lost = self._low_rank(digits)
        for first in range(0, shape[0], BLOCK):
            rows = slice(first, first + BLOCK)
            gram, error = product(system.gram[rows], digits)
            gram_error += error
            scaled = dd.multiply(dd.wide(system.a), gram)
            ridge = dd.multiply(dd.wide(system.ridge), x.rows(rows))
            total = dd.add(scaled, ridge)
            size += squares(scaled.hi) + squares(ridge.hi) + squares(right.hi[rows])
            if pieces is not None:
                low_rank, error = product(system.columns[rows], pieces)
                outer_error += error
                total = dd.add(total, low_rank)
                size += squares(low_rank.hi)
            rest.hi[rows], rest.lo[rows] = dd.add(right.rows(rows), -total)
        # `x` may differ from its digits by the rounding of `value`.
        relative = (4 + len(digits.units)) * dd.SUM + 2 * dd.PRODUCT + system.relative_error
        bound = abs(float(system.a.hi)) * PRODUCT_ERROR * np.sqrt(gram_error)
        bound = bound + PRODUCT_ERROR * np.sqrt(outer_error)
        return rest, bound + lost + relative * np.sqrt(4 * size)

    def _low_rank(self, digits: Digits) -> tuple[Digits | None, Array]:
        """`B (U^T W)` cut into digits, and what U times it is off by; no digits where U has no columns.

        Its size enters the bound through the norms of U, B and the inner product: five products or quotients,
        a sum over the m columns (each addition `dd.SUM` of at most `|h| |U^T w|`, by Cauchy-Schwarz) and a
        difference; then what the digits leave over.
        """
        system, rank = self.system, self.system.columns.shape[1]
        if not rank:
            return None, np.zeros(digits.units.shape[1])
        inner, error = product(system.columns.T, digits)
        scaled = dd.multiply(dd.upright(system.b), inner)
        if system.h.hi.any():
            along = dd.divide(dd.total(dd.multiply(dd.upright(system.h), inner)), dd.wide(system.over))
            shared = dd.multiply(dd.upright(system.h), along)  # along is (1, classes)
            scaled = dd.add(scaled, -shared)
        count = ceil(LOW_RANK_BITS / log2(digit_gain(rank, self.outer_reach)))
        pieces, rest = slice_columns(scaled, self.outer_reach, count)
        mass = self.largest + self.pull
        relative = 8 * dd.PRODUCT + (rank + 1) * dd.SUM + 4 * system.relative_error
        lost = mass * (PRODUCT_ERROR * np.sqrt(error) + relative * norms(inner.hi)) + norms(rest.hi)
        return pieces, self.frobenius * lost


class _Factor:
    """A float64 Cholesky factor of the system: it only preconditions, so BLAS may round as it likes."""

    def __init__(self, system: System) -> None:
        matrix = _formed(system)
        size = frobenius(matrix)
        self.diagonal = matrix.diagonal().copy()
        try:
            # The transpose of a symmetric C array is the Fortran array LAPACK wants: no copy is made.
            self.factor, _ = cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            raise Undecided(TOO_SMALL) from None
        self.loss = _loss(system, size + 2 * float(self.factor.diagonal().max(initial=0.0)))

    def solve(self, right: Array) -> Array:
        x: Array = cho_solve((self.factor, True), right, check_finite=False)
        return np.ascontiguousarray(x)  # operations on arrays of two orders are slow

    def remainder(self, right: Array, x: Array) -> tuple[Array, Array]:
        """`right - A x` in float64, from the triangle that the factor left untouched; a bound by column."""
        product: Array = blas.dsymm(1.0, self.factor, x.T, side=1, lower=0).T
        product += (self.diagonal - self.factor.diagonal())[:, None] * x
        return np.subtract(right, product, out=product), self.loss * norms(x) + 2 * UNIT * norms(right)


def _formed(system: System) -> Array:
    """A, rounded."""
    matrix = float(system.a.hi) * system.gram
    if system.columns.shape[1]:
        left, right = system.columns * system.b.hi, system.columns
        if system.h.hi.any():
            pulled = matmul(system.columns, system.h.hi[:, None])
            left, right = np.hstack([left, pulled / -system.over.hi]), np.hstack([right, pulled])
        matrix = blas.dgemm(1.0, right.T, left.T, trans_a=1, beta=1.0, c=matrix.T, overwrite_c=True).T
    matrix[np.diag_indices(len(matrix))] += float(system.ridge.hi)
    return matrix


def _sizes(system: System) -> tuple[float, float]:
    """The norms of `diag(b)` and `h h^T / over`."""
    pull = float((system.h.hi**2).sum() / system.over.hi)
    return float(np.abs(system.b.hi).max(initial=0.0)), pull


def _loss(system: System, size: float) -> float:
    """Bound on the norm of what `A x` loses per unit of x: forming A in float64, multiplying by it.

    An entry of A is a sum of `m + 3` products, each of at most six roundings, so off by at most `(2 m + 16)
    u` of their magnitudes; a product with it by `(width + 16) u` of its own, with the factor's pivots, which
    `remainder` puts on the diagonal and takes off again (Higham, "Accuracy and Stability", 3.5). A matrix of
    magnitudes is as large as its Frobenius norm at most: `size` of A with twice the largest pivot.
    """
    width, rank = system.columns.shape
    terms = abs(float(system.a.hi)) * frobenius(system.gram) + float(system.ridge.hi)
    terms += sum(_sizes(system)) * frobenius(system.columns) ** 2
    loss: float = ((2 * rank + 16) * terms + (width + 16) * size) * UNIT * SAFETY
    return loss
