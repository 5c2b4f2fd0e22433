"""From a double-double and a bound on its error to the float32 nearest to the truth, or to no answer."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from app.methods.parts.double_double import DD, UNIT, Array
from app.methods.parts.slicing import SAFETY

TINY = 60  # entries below 2**-TINY of their column's largest are published as zero
OVERFLOW = 2.0**128 - 2.0**103  # from here on the nearest float32 is infinite


class Undecided(ArithmeticError):
    """The bound does not become small enough to round every entry; nothing may be published."""


def round_to_float32(x: DD, error: Array) -> NDArray[np.float32] | None:
    """Each entry of x (rows, columns) rounded to the nearest float32; None where an entry is undecided.

    `error` bounds the distance to the truth, by column or by entry. An entry below `2**-60` of the power of
    two at or above its column's largest is 0.
    """
    values, decided = decide(x, error)
    return values if decided.all() else None


def round_quotients(x: DD, error: Array, column: Callable[[int], list[Fraction]]) -> NDArray[np.float32]:
    """As `round_to_float32` for numbers whose columns are known as fractions, which settle what is undecided.

    Quotients of small integers do lie halfway between two float32 numbers; those go to the even one.
    """
    values, decided = decide(x, error)
    for c in np.flatnonzero(~decided.all(axis=0)):
        exact = column(int(c))
        line = _power_at_or_above(max(map(abs, exact))) * Fraction(1, 2**TINY)
        for i in np.flatnonzero(~decided[:, c]):
            values[i, c] = 0.0 if abs(exact[i]) < line else half_to_even(exact[i])
    return values


def decide(x: DD, error: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """As `round_to_float32`, with the entries (rows, columns) that the bound decides.

    Raises `Undecided` where an entry is too large for float32.
    """
    size = np.abs(x.hi)
    largest = size.max(axis=0, initial=0.0)
    reach = np.broadcast_to(error, size.shape).max(axis=0, initial=0.0)
    slip = 4 * UNIT  # what `lo` and the rounding of these sums may add
    lowest, highest = _line(largest * (1 - slip) - reach), _line(largest * (1 + slip) + reach)
    least, most = size * (1 - slip) - error, size * (1 + slip) + error
    if (least.max(axis=0, initial=0.0) >= OVERFLOW).any():
        raise Undecided("a value is too large for float32: nothing that it is part of can be published")
    nearest, slack = _nearest(size, np.copysign(1.0, x.hi) * x.lo)
    zero = (most < lowest) | ((largest == 0) & (reach == 0))
    decided = zero | ((least >= highest) & (most < OVERFLOW) & (slack > error * SAFETY))
    values = np.copysign(nearest, x.hi).astype(np.float32)
    if zero.any():
        values[zero] = 0.0
    return values, decided


def _nearest(size: Array, low: Array) -> tuple[NDArray[np.float32], Array]:
    """The float32 nearest to `size + low`, size not negative, and how far the next boundary is.

    Where `size` lies halfway between two, `low` decides. Beside a boundary the first difference is exact, so
    the second rounds only in its own last place.
    """
    with np.errstate(over="ignore"):
        nearest = size.astype(np.float32)
    below, above = _boundaries(nearest)
    up, down = (size == above) & (low > 0), (size == below) & (low < 0)
    if up.any() or down.any():
        nearest[up] = np.nextafter(nearest[up], np.float32(np.inf))
        nearest[down] = np.nextafter(nearest[down], np.float32(0))
        below, above = _boundaries(nearest)
    return nearest, np.fmin((above - size) - low, (size - below) + low)


def _boundaries(x: NDArray[np.float32]) -> tuple[Array, Array]:
    """Halfway to the float32 below and to the one above, of numbers not negative; exact in float64.

    Neighbours are neighbours as integers. There is none below 0 nor above infinity: not a number.
    """
    middle, bits = x.astype(np.float64), x.view(np.int32)
    with np.errstate(invalid="ignore"):
        below, above = ((bits + step).view(np.float32).astype(np.float64) for step in (-1, 1))
    return (middle + below) / 2, (middle + above) / 2


def _line(largest: Array) -> Array:
    """`2**-60` times the power of two at or above each value; 0 for what is not positive."""
    fraction, exponent = np.frexp(np.maximum(largest, 0.0))
    return np.where(largest > 0, np.ldexp(1.0, exponent - (fraction == 0.5) - TINY), 0.0)


def _power_at_or_above(value: Fraction) -> Fraction:
    """The least power of two that is not below a positive number; 0 for 0."""
    if not value:
        return value
    power = Fraction(2) ** (value.numerator.bit_length() - value.denominator.bit_length() - 1)
    while power < value:
        power *= 2
    return power


def half_to_even(value: Fraction) -> np.float32:
    """The float32 nearest to a rational number; of two as near the one whose last bit is 0."""
    guess = np.float32(float(value))
    around = (guess, np.nextafter(guess, np.float32(-np.inf)), np.nextafter(guess, np.float32(np.inf)))
    return min(around, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.int32)) & 1))
