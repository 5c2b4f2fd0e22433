"""Double-double arithmetic on arrays: a number is an unevaluated sum `hi + lo` of two float64, some 106 bits.

Error-free transformations of Dekker (1971) and Knuth (TAOCP 2, 4.2.2); the sums and the product are those of
Joldes, Muller and Popescu, "Tight and rigorous error bounds for basic building blocks of double-word
arithmetic" (ACM TOMS 44, 2017), with their bounds: relative to the result, whatever cancels. Every function
takes and gives normalised pairs, and assumes that nothing under- or overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT = 2.0**-53
SUM = 4 * UNIT**2  # AccurateDWPlusDW: 3 u^2 + 13 u^3; DWPlusFP: 2 u^2
PRODUCT = 8 * UNIT**2  # DWTimesDW1: 7 u^2
_SPLITTER = 2.0**27 + 1


class DD(NamedTuple):
    """`hi + lo`, with `hi` the sum rounded to float64."""

    hi: Array
    lo: Array

    def __neg__(self) -> DD:
        return DD(-self.hi, -self.lo)

    @property
    def T(self) -> DD:
        return DD(self.hi.T, self.lo.T)

    def rows(self, chosen: slice) -> DD:
        return DD(self.hi[chosen], self.lo[chosen])

    def columns(self, chosen: slice) -> DD:
        return DD(self.hi[:, chosen], self.lo[:, chosen])

    def scaled(self, factor: float) -> DD:
        """Times a power of two: exact."""
        return DD(self.hi * factor, self.lo * factor)


def exact(x: Array | float) -> DD:
    """A float64 as a double-double."""
    hi = np.asarray(x, dtype=np.float64)
    return DD(hi, np.zeros_like(hi))


def fast_two_sum(a: Array, b: Array) -> DD:
    """`a + b` exactly, where |a| >= |b| or a is zero."""
    s = np.asarray(a + b)
    e = np.asarray(s - a)
    return DD(s, np.subtract(b, e, out=e))  # in place: large temporaries cost more than the arithmetic


def two_sum(a: Array, b: Array) -> DD:
    """`a + b` exactly: `(a - (s - t)) + (b - t)` is what `s` lost."""
    s = np.asarray(a + b)
    t = np.asarray(s - a)
    e = np.asarray(s - t)
    np.subtract(a, e, out=e)
    np.subtract(b, t, out=t)
    return DD(s, np.add(e, t, out=e))


def two_product(a: Array, b: Array) -> DD:
    """`a * b` exactly (no overflow or underflow of the parts)."""
    p = a * b
    ah, al = _split(a)
    bh, bl = _split(b)
    return DD(p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)


def add(x: DD, y: DD) -> DD:
    """`x + y`, relative error below `SUM`."""
    s, e = two_sum(x.hi, y.hi)
    t, f = two_sum(x.lo, y.lo)
    s, e = fast_two_sum(s, e + t)
    return fast_two_sum(s, e + f)


def add_float(x: DD, y: Array) -> DD:
    """`x + y` for a float64 y, relative error below `SUM`."""
    s, e = two_sum(x.hi, y)
    return fast_two_sum(s, e + x.lo)


def add_up(terms: Sequence[Array]) -> DD:
    """The sum of n float64 terms, error below `(n * UNIT)**2` of the sum of their magnitudes.

    What each addition loses is at most `UNIT` of that sum and is known exactly (`two_sum`); only adding up
    those n - 1 losses rounds, n - 2 times (Ogita, Rump and Oishi, "Accurate sum and dot product", SIAM J.
    Sci. Comput. 26, 2005).
    """
    s, lost = terms[0], None
    for term in terms[1:]:
        s, e = two_sum(s, term)
        lost = e if lost is None else np.add(lost, e, out=e)
    return exact(s) if lost is None else two_sum(s, lost)


def multiply(x: DD, y: DD) -> DD:
    """`x * y`, relative error below `PRODUCT`."""
    p, e = two_product(x.hi, y.hi)
    return fast_two_sum(p, e + (x.hi * y.lo + x.lo * y.hi))


def divide(x: DD, y: DD) -> DD:
    """`x / y`, relative error below `2 * PRODUCT`.

    Long division with three float64 digits. The first rest is off by `PRODUCT` of x and leaves less than `4
    u`; the second digit leaves `16 u^2`, which the third takes away; adding them up loses `SUM` (twice).
    """
    q = exact(x.hi / y.hi)
    rest = add(x, -multiply(q, y))
    second = exact(rest.hi / y.hi)
    rest = add(rest, -multiply(second, y))
    return add(add(q, second), exact(rest.hi / y.hi))


def total(x: DD) -> DD:
    """(1, columns): the sum of each column of x (rows, columns), in a fixed tree.

    Error at most `ceil(log2 rows) * SUM` of the sum of magnitudes, and a rounding of that.
    """
    while len(x.hi) > 1:
        half = len(x.hi) // 2
        pairs = add(DD(x.hi[:half], x.lo[:half]), DD(x.hi[half : 2 * half], x.lo[half : 2 * half]))
        odd = slice(2 * half, None)
        x = DD(np.concatenate([pairs.hi, x.hi[odd]]), np.concatenate([pairs.lo, x.lo[odd]]))
    return x


def wide(scalar: DD) -> DD:
    """(1, 1), to multiply matrices with."""
    return DD(np.reshape(scalar.hi, (1, 1)), np.reshape(scalar.lo, (1, 1)))


def upright(vector: DD) -> DD:
    """(n, 1), to multiply rows with."""
    return DD(vector.hi[:, None], vector.lo[:, None])


def from_fraction(value: Fraction) -> DD:
    """A rational number, relative error at most `UNIT**2`: both parts are correctly rounded."""
    hi = float(value)
    return DD(np.asarray(hi), np.asarray(float(value - Fraction(hi))))


def from_fractions(values: Sequence[Fraction]) -> DD:
    """(n,) of rational numbers."""
    parts = [from_fraction(value) for value in values]
    return DD(np.array([p.hi for p in parts]), np.array([p.lo for p in parts]))


def _split(a: Array) -> tuple[Array, Array]:
    c = _SPLITTER * a
    hi = c - (c - a)
    return hi, a - hi
