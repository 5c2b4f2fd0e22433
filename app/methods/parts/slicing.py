"""Matrix products without rounding: numbers cut into digits so short that their products add up exactly.

By Cauchy-Schwarz a partial sum of a product is at most the norm of a row on the left times that of a column
on the right. Rows of integers are cut in two so that neither half is longer than a `reach`; columns are cut
into integers times a power of two, none longer than `2**52 / reach`. So float64 holds every product of a half
and a digit exactly, whatever order BLAS sums in (the error-free splitting of Ozaki et al., "Error-free
transformations of matrix multiplication", Numerical Algorithms 59, 2012, with a bound by norms).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2, sqrt

import numpy as np
from scipy.linalg import blas

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT, Array

LONGEST = 2.0**52  # of a half's row times a digit's column
SAFETY = 1 + 2.0**-20  # for the rounding of norms and bounds themselves
PRODUCT_ERROR = UNIT**2 * SAFETY


@dataclass(frozen=True)
class Digits:
    """`sum_j digit_j units_j`, the digits beside each other; units are powers of two."""

    stacked: Array  # (rows, count * columns)
    units: Array  # (count, columns)
    reach: float  # of what they may be multiplied by

    def columns(self, chosen: slice) -> Digits:
        """Those of some columns."""
        count, columns = self.units.shape
        by_digit = self.stacked.reshape(-1, count, columns)[:, :, chosen]
        units = self.units[:, chosen]
        return Digits(by_digit.reshape(len(self.stacked), units.size), units, self.reach)

    def value(self) -> DD:
        """The number itself, rounded `count - 1` times by `dd.SUM`: any number near the one cut will do."""
        first, *others = np.split(self.stacked, len(self.units), axis=1)
        total = dd.exact(first * self.units[0])
        for digit, unit in zip(others, self.units[1:], strict=True):
            total = dd.add_float(total, digit * unit)
        return total


def slice_bits(terms: int) -> int:
    """Bits of integers, signs included, of which any `terms` products add up exactly: at most `2**51`."""
    return (53 - ceil(log2(max(terms, 2)))) // 2


def reach_of(matrix: Array) -> float:
    """The least norm that both halves of each row (rows, length) keep to, or near it; see `halves`."""
    longest = sqrt(float(np.einsum("ij,ij->i", matrix, matrix).max(initial=0.0)))
    off = _half_off(matrix)
    bits = max(2, round(log2(max(longest / off, 1.0)) / 2))
    return max(off * 2.0**bits, longest / 2.0**bits + off) * SAFETY


def halves(matrix: Array, reach: float) -> tuple[Array, Array]:
    """`matrix = low + high` of integers below 2**53; rows of `low`, and of `high` over its unit, keep to it.

    The unit, 4 at least, is a power of two. An entry of `low` is at most half of it, and so is what an entry
    of `high` is off. Where a unit is the last place of a sum, adding rounds to units.
    """
    rounding = 1.5 * 2.0 ** (52 + floor(log2(reach / _half_off(matrix))))
    high = matrix + rounding
    high -= rounding
    return matrix - high, high


def digit_gain(rows: int, reach: float) -> float:
    """How many times smaller than a column (rows,), or the rest of a digit, the rest of its next digit is.

    A digit's rounding makes it longer by `sqrt(rows) / 2` at most; its unit is the least power of two that
    leaves room for that, and the rest at most as long as that rounding.
    """
    off = sqrt(rows) / 2
    return (LONGEST / reach - off) / (2 * off)


def slice_columns(x: DD, reach: float, count: int) -> tuple[Digits, DD]:
    """The first digits of each column of x, and the rest.

    Taking a digit off `hi` is exact: the difference is a multiple of the last place of `hi` and no longer.
    """
    rows, columns = x.hi.shape
    room = LONGEST / reach - sqrt(rows) / 2
    if room < sqrt(rows):
        raise ValueError("these rows are too long to multiply by digits")
    found = Digits(np.empty((rows, count * columns)), np.empty((count, columns)), reach)
    rest = x
    for j in range(count):
        unit = np.ldexp(1.0, np.frexp(norms(rest.hi) / room)[1])
        digit = rest.hi * (1 / unit)  # scaling by a power of two is exact
        np.rint(digit, out=digit)
        found.stacked[:, j * columns : (j + 1) * columns], found.units[j] = digit, unit
        digit *= unit
        rest = dd.two_sum(np.subtract(rest.hi, digit, out=digit), rest.lo)
    return found, rest


def product(left: Array, right: Digits) -> tuple[DD, Array]:
    """`left @ right` for integers below 2**53, and by column a sum of squares that bounds its error.

    Only adding up the n products of halves and digits rounds (`dd.add_up`). By Cauchy-Schwarz that loses at
    most `PRODUCT_ERROR` times the root of the sum; blocks of rows may add theirs up before it is taken.
    """
    columns = right.units.shape[1]
    terms = []
    for half in halves(left, right.reach):
        partial = matmul(half, right.stacked)
        for j, unit in enumerate(right.units):
            terms.append(partial[:, j * columns : (j + 1) * columns] * unit)
    size = sum((squares(term) for term in terms), np.zeros(columns))
    return dd.add_up(terms), size * len(terms) ** 5


def matmul(left: Array, right: Array) -> Array:
    """`left @ right` by the BLAS that factorises: numpy brings another, and the threads of two in turn wait
    for each other.
    """
    result: Array = blas.dgemm(1.0, np.ascontiguousarray(right).T, np.ascontiguousarray(left).T).T
    return result


def squares(x: Array) -> Array:
    """The sum of squares of each column."""
    found: Array = np.einsum("ij,ij->j", x, x)
    return found


def norms(x: Array) -> Array:
    """2-norm of each column, rounded up."""
    lengths: Array = np.sqrt(squares(x)) * SAFETY
    return lengths


def frobenius(x: Array) -> float:
    """The 2-norm of all entries, rounded up."""
    flat = x.ravel()
    return float(blas.ddot(flat, flat) ** 0.5 * SAFETY) if len(flat) else 0.0


def _half_off(matrix: Array) -> float:
    """The norm of a row of halves: what rounding to integers moves a row by at most."""
    return sqrt(max(matrix.shape[1], 1)) / 2
