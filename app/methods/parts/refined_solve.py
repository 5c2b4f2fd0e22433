"""Correctly rounded solutions of integer ridge systems: the same float32 on any machine.

A float64 solve differs in its last bits between thread counts, processors and orders of the rows. The
solution does not: it is a function of integers. So solve in any way that is fast, then bound the distance to
the true solution until no float32 is left undecided.

The system is `A W = R`, `A = a G + U B U^T + r I` with G (width, width) and U (width, m) integer, `B =
diag(b) - h h^T / over`, `a G + U B U^T` positive semidefinite and `r > 0`. So `A` is at least `r`, and a
column x is off by at most `|R - A x| / r`. That residual is computed in double-double from products that are
each exact (`slicing`), with a bound on what its additions lose. Numbers lie between 2**-500 and 2**500, so
that nothing under- or overflows.

Cost at width d with C columns: one Cholesky factorisation (d^3 / 3 multiply-adds), two triangular solves and
six d x d x C products. Memory: about 48 d^2 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, blas, cho_factor, cho_solve

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT, Array
from app.methods.parts.rounding import Undecided, round_to_float32
from app.methods.parts.slicing import (
    SAFETY,
    assemble,
    norms,
    product,
    slice_bits,
    slice_columns,
    slice_integers,
)

ROUNDS = 8  # far more than an ordinary ridge needs; a round that does not halve the bound is the last
LOW_RANK_SLICES = 5
MOST_SLICES = 6  # more than the 106 bits of a double-double


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


@dataclass(frozen=True)
class Rounded:
    """Weights correctly rounded, the double-double they were rounded from, and its bound."""

    weights: NDArray[np.float32]  # (width, classes)
    solution: Solution
    rounds: int


def rounded(system: System) -> Rounded:
    """Solve until every weight rounds with certainty. Raises `Undecided`."""
    for rounds, solution in enumerate(solve(system), start=1):
        weights = round_to_float32(solution.weights, solution.error)
        if weights is not None:
            return Rounded(weights, solution, rounds)
    raise Undecided("the ridge is too small for this system: its weights cannot be rounded with certainty")


def solve(system: System, slices: int = 2) -> Iterator[Solution]:
    """Ever better solutions; each costs a residual and a triangular solve. Raises `Undecided`.

    A round cuts x to few bits (`base`; what is cut off, the correction finds again), takes the residual of
    that and adds a float64 correction. `R - A (base + step)` is `left` and what rounded on the way to it.
    """
    bits = slice_bits(max(system.columns.shape))
    residual = _Residual(system, bits)
    factor = _Factor(system)
    x, before = dd.exact(factor.solve(system.right.hi)), np.inf
    for round in range(1, ROUNDS + 1):
        digits, exponent, _ = slice_columns(x, bits, min(slices * round, MOST_SLICES))
        base = assemble(digits, exponent, bits)
        rest, bound = residual(base, digits, exponent)
        step = factor.solve(rest.hi)
        left, loss = factor.remainder(rest.hi, step)
        x = dd.add_float(base, step)
        error = norms(left) + norms(rest.lo) + bound + loss + system.right_error
        # Adding the step, and putting `base` together from its digits, rounds by entry.
        error = error / system.ridge.hi + (len(digits) + 1) * dd.SUM * norms(x.hi)
        yield Solution(x, error * SAFETY)
        if float(error.max(initial=0.0)) > before / 2:
            return
        before = float(error.max(initial=0.0))


class _Residual:
    """`R - A W` for a W given by its digits, with a bound on its error by column."""

    def __init__(self, system: System, bits: int) -> None:
        self.system, self.bits = system, bits
        self.gram = slice_integers(system.gram, bits)
        self.columns = slice_integers(system.columns, bits)
        self.frobenius = float(np.linalg.norm(system.columns))
        self.largest = float(np.abs(system.b.hi).max(initial=0.0))
        self.pull = float(system.h.hi @ system.h.hi / system.over.hi)  # the norm of h h^T / over

    def __call__(self, x: DD, digits: list[Array], exponent: NDArray[np.int64]) -> tuple[DD, Array]:
        """Every term's own relative error, and `dd.SUM` of a partial sum for each of the three additions."""
        system, bits = self.system, self.bits
        gram, gram_error = product(self.gram, digits, exponent, bits)
        scaled = dd.multiply(dd.wide(system.a), gram)
        ridge = dd.multiply(dd.wide(system.ridge), x)
        total = dd.add(scaled, ridge)
        size = norms(scaled.hi) + norms(ridge.hi)
        bound = abs(float(system.a.hi)) * gram_error
        if system.columns.shape[1]:
            low_rank, loss = self._low_rank(digits, exponent)
            total, size, bound = dd.add(total, low_rank), size + norms(low_rank.hi), bound + loss
        size = size + norms(system.right.hi)
        # `x` may differ from its digits by the rounding of `assemble`.
        relative = (4 + len(digits)) * dd.SUM + 2 * dd.PRODUCT + system.relative_error
        return dd.add(system.right, -total), bound + relative * size

    def _low_rank(self, digits: list[Array], exponent: NDArray[np.int64]) -> tuple[DD, Array]:
        """`U (B (U^T W))`; its size enters the bound through the norms of U, B and the inner product.

        Five products or quotients, a sum over the m columns (each addition `dd.SUM` of at most
        `|h| |U^T w|`, by Cauchy-Schwarz) and a difference; then what the digits of `B U^T W` leave over.
        """
        system, bits = self.system, self.bits
        inner, inner_error = product([u.T for u in self.columns], digits, exponent, bits)
        own = dd.multiply(dd.upright(system.b), inner)
        along = dd.divide(dd.total(dd.multiply(dd.upright(system.h), inner)), dd.wide(system.over))
        shared = dd.multiply(dd.upright(system.h), along)  # along is (1, classes)
        pieces, scale, rest = slice_columns(dd.add(own, -shared), bits, LOW_RANK_SLICES)
        outer, outer_error = product(self.columns, pieces, scale, bits)
        size = norms(own.hi) + self.pull * norms(inner.hi)
        relative = 8 * dd.PRODUCT + (inner.hi.shape[0] + 1) * dd.SUM + 4 * system.relative_error
        lost = (self.largest + self.pull) * inner_error + relative * size + norms(rest.hi)
        return outer, outer_error + self.frobenius * lost


class _Factor:
    """A float64 Cholesky factor of the system: it only preconditions, so BLAS may round as it likes."""

    def __init__(self, system: System) -> None:
        matrix = _formed(system)
        self.diagonal = matrix.diagonal().copy()
        try:
            # The transpose of a symmetric C array is the Fortran array LAPACK wants: no copy is made.
            self.factor, _ = cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            raise Undecided("the ridge is too small for this system: use a model with a larger one") from None
        self.loss = _loss(system, float(self.factor.diagonal().max(initial=0.0)))

    def solve(self, right: Array) -> Array:
        x: Array = cho_solve((self.factor, True), right, check_finite=False)
        return x

    def remainder(self, right: Array, x: Array) -> tuple[Array, Array]:
        """`right - A x` in float64, from the triangle that the factor left untouched; a bound by column."""
        product: Array = blas.dsymm(1.0, self.factor, x, lower=0)
        product += (self.diagonal - self.factor.diagonal())[:, None] * x
        return right - product, self.loss * norms(x) + 2 * UNIT * norms(right)


def _formed(system: System) -> Array:
    """A, rounded."""
    matrix = float(system.a.hi) * system.gram
    if system.columns.shape[1]:
        matrix += (system.columns * system.b.hi) @ system.columns.T
        pulled = system.columns @ system.h.hi
        matrix -= np.outer(pulled / system.over.hi, pulled)
    matrix[np.diag_indices(len(matrix))] += float(system.ridge.hi)
    return matrix


def _loss(system: System, largest_pivot: float) -> float:
    """Bound on the norm of what `A x` loses per unit of x: forming A in float64, multiplying by it.

    Both are off by at most `(width + m + 8) u` times the matrix of magnitudes (Higham, "Accuracy and
    Stability", 3.5), whose 2-norm is at most its largest row sum; `remainder` puts the factor's pivots on the
    diagonal and takes them off again, so they count among the magnitudes.
    """
    width, rank = system.columns.shape
    sums = abs(float(system.a.hi)) * np.abs(system.gram).sum(axis=1)
    if rank:
        magnitude = np.abs(system.columns)
        ones = magnitude.sum(axis=0)
        h = np.abs(system.h.hi)
        sums += magnitude @ (np.abs(system.b.hi) * ones + h * (h @ ones) / float(system.over.hi))
    mass = float(sums.max(initial=0.0)) + 2 * (float(system.ridge.hi) + largest_pivot)
    loss: float = 4 * (width + rank + 8) * UNIT * mass
    return loss
