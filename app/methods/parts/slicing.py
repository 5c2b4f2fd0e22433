"""Matrix products without rounding: numbers cut into digits so short that their products add up exactly.

A digit of `bits` bits is an integer of magnitude at most `2**(bits - 1)`. A product of two digits summed over
`terms` terms stays at or below `2**51`, and so does every partial sum of it; three such products still add up
below `2**53`. float64 holds them exactly, whatever order BLAS sums in (the error-free splitting of Ozaki et
al.,
"Error-free transformations of matrix multiplication", Numerical Algorithms 59, 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT, Array

MOST_EXACT = 3  # products of digits that may be added up before the first rounding
SAFETY = 1 + 2.0**-20  # for the rounding of norms and bounds themselves


@dataclass(frozen=True)
class Digits:
    """`sum_j digit_j 2**(exponent - bits (j + 1))`, the digits beside each other."""

    stacked: Array  # (rows, count * columns)
    exponent: NDArray[np.int64]  # (columns,)
    bits: int
    count: int

    def value(self) -> DD:
        """The number itself, rounded `count - 1` times by `dd.SUM`: any number near the one cut will do."""
        first, *others = np.split(self.stacked, self.count, axis=1)
        total = dd.exact(first * self.unit(0))
        for j, digit in enumerate(others, start=1):
            total = dd.add_float(total, digit * self.unit(j))
        return total

    def unit(self, j: int) -> Array:
        """(columns,): of digit j, powers of two."""
        unit: Array = np.ldexp(1.0, self.exponent - self.bits * (j + 1))
        return unit


def slice_bits(terms: int) -> int:
    """Bits of a digit: `terms * 2**(2 bits - 2) <= 2**51`. 18 or more up to 131,072 terms."""
    return (53 - ceil(log2(max(terms, 2)))) // 2


def slice_integers(matrix: Array, bits: int) -> list[Array]:
    """Digits of an integer matrix below 2**53: `matrix = sum_i digit_i 2**(bits i)`, `|digit| <= 2**(bits -
    1)`.

    At 18 bits or more there are at most three.
    """
    digits: list[Array] = []
    rest, unit = matrix, 2.0**bits
    largest = max(float(rest.max(initial=0.0)), -float(rest.min(initial=0.0)))
    while largest > unit / 2:
        high = rest * (1 / unit)
        np.rint(high, out=high)
        low = high * unit
        digits.append(np.subtract(rest, low, out=low))
        # Rounding is monotone: the largest of the next digits comes from the largest of these numbers.
        rest, largest = high, float(np.rint(largest / unit))
    return [*digits, rest]


def slice_columns(x: DD, bits: int, count: int) -> tuple[Digits, DD]:
    """The first digits of each column of x, and the rest; `|digit| <= 2**(bits - 1)`.

    Why the bound holds: what is left after a digit is at most half its unit plus `lo`, and `|lo| <= 2**-53
    |hi|` is below a third of the next unit because `2 bits <= 52`; so the next digit rounds to `2**(bits -
    1)` at most. Taking a digit off `hi` is exact: the difference is a multiple of the last place of `hi` and
    no longer.
    """
    rows, columns = x.hi.shape
    exponent = np.frexp(np.abs(x.hi).max(axis=0, initial=0.0))[1].astype(np.int64) + 1
    found = Digits(np.empty((rows, count * columns)), exponent, bits, count)
    rest = x
    for j in range(count):
        unit = found.unit(j)  # scaling by it is exact, as by 1 / unit
        digit = rest.hi * (1 / unit)
        np.rint(digit, out=digit)
        found.stacked[:, j * columns : (j + 1) * columns] = digit
        digit *= unit
        rest = dd.two_sum(np.subtract(rest.hi, digit, out=digit), rest.lo)
    return found, rest


def product(left: Array, right: Digits) -> tuple[DD, Array]:
    """`left @ right` for integers below 2**53, and by column a sum of squares that bounds its error.

    Only adding up the products of the digits rounds; the error's 2-norm is at most `PRODUCT_ERROR` times the
    root of that sum, which products of blocks of rows may add up before it is taken.
    """
    digits = slice_integers(left, right.bits)
    if min(len(digits), right.count) > MOST_EXACT:
        raise ValueError("too many digits to add up exactly")
    columns = len(right.exponent)
    by_shift: dict[int, Array] = {}
    for i, digit in enumerate(digits):
        partial = matmul(digit, right.stacked)
        for j in range(right.count):
            block = partial[:, j * columns : (j + 1) * columns]
            same = by_shift.get(j - i)
            by_shift[j - i] = block if same is None else same + block
    terms = [by_shift[shift] * right.unit(shift) for shift in sorted(by_shift)]
    return dd.add_up(terms), sum((squares(term) for term in terms), np.zeros(columns))


MOST_TERMS = 8  # of `product`: three digits and six
PRODUCT_ERROR = (MOST_TERMS * UNIT) ** 2 * MOST_TERMS**0.5 * SAFETY  # `dd.add_up`, by Cauchy-Schwarz


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
