"""Matrix products without rounding: numbers cut into digits so short that their products add up exactly.

A digit of `bits` bits is an integer of magnitude at most `2**(bits - 1)`. A product of two digits summed over
`terms` terms stays at or below `2**51`, and so does every partial sum of it; three such products still add up
below `2**53`. float64 holds them exactly, whatever order BLAS sums in (the error-free splitting of Ozaki et
al.,
"Error-free transformations of matrix multiplication", Numerical Algorithms 59, 2012).
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, Array

MOST_EXACT = 3  # products of digits that may be added up before the first rounding
SAFETY = 1 + 2.0**-20  # for the rounding of norms and bounds themselves


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
    while max(rest.max(initial=0.0), -rest.min(initial=0.0)) > unit / 2:
        high = np.rint(rest * (1 / unit))
        digits.append(rest - high * unit)
        rest = high
    return [*digits, rest]


def slice_columns(x: DD, bits: int, count: int) -> tuple[list[Array], NDArray[np.int64], DD]:
    """Digits by column: `x = sum_j digit_j 2**(exponent - bits (j + 1)) + rest`, `|digit| <= 2**(bits - 1)`.

    Why the bound holds: what is left after a digit is at most half its unit plus `lo`, and `|lo| <= 2**-53
    |hi|` is below a third of the next unit because `2 bits <= 52`; so the next digit rounds to `2**(bits -
    1)` at most. Taking a digit off `hi` is exact: the difference is a multiple of the last place of `hi` and
    no longer.
    """
    exponent = np.frexp(np.abs(x.hi).max(axis=0, initial=0.0))[1].astype(np.int64) + 1
    digits: list[Array] = []
    rest = x
    for j in range(count):
        unit = np.ldexp(
            1.0, exponent - bits * (j + 1)
        )  # a power of two: scaling by it is exact, as by 1 / unit
        digit = np.rint(rest.hi * (1 / unit))
        rest = dd.two_sum(rest.hi - digit * unit, rest.lo)
        digits.append(digit)
    return digits, exponent, rest


def assemble(digits: list[Array], exponent: NDArray[np.int64], bits: int) -> DD:
    """`sum_j digit_j 2**(exponent - bits (j + 1))`, rounded to a double-double: any number near will do."""
    total = dd.exact(np.zeros_like(digits[0]))
    for j, digit in enumerate(digits):
        total = dd.add_float(total, digit * np.ldexp(1.0, exponent - bits * (j + 1)))
    return total


def product(
    left: list[Array], right: list[Array], exponent: NDArray[np.int64], bits: int
) -> tuple[DD, Array]:
    """`(sum_i left_i 2**(bits i)) @ (sum_j right_j 2**(exponent - bits (j + 1)))` and a bound by column.

    Only the combination of the digits' products rounds: each addition by `dd.SUM` of a partial sum, which is
    at most the sum of the magnitudes.
    """
    if min(len(left), len(right)) > MOST_EXACT:
        raise ValueError("too many digits to add up exactly")
    stacked = np.concatenate(right, axis=1)
    count = right[0].shape[1]
    by_shift: dict[int, Array] = {}
    for i, digit in enumerate(left):
        partial = digit @ stacked
        for j in range(len(right)):
            block = partial[:, j * count : (j + 1) * count]
            same = by_shift.get(i - j - 1)
            by_shift[i - j - 1] = block if same is None else same + block
    total = dd.exact(np.zeros_like(by_shift[-1]))
    size = np.zeros_like(total.hi)
    for shift in sorted(by_shift):
        scaled = by_shift[shift] * np.ldexp(1.0, bits * shift + exponent)
        total = dd.add_float(total, scaled)
        size += np.abs(scaled)
    return total, len(by_shift) * dd.SUM * norms(size)


def norms(x: Array) -> Array:
    """2-norm of each column, rounded up."""
    lengths: Array = np.sqrt(np.einsum("ij,ij->j", x, x)) * SAFETY
    return lengths
