"""Square root and exponential in double-double, without libm: the same bits on any machine.

float64's `exp` differs between libraries in its last bit; numbers that are published are rounded from these.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial

import numpy as np

from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT

ROOT = 4 * UNIT**2  # relative error of `sqrt`
EXP = 2.0**-88  # relative error of `exp`
FARTHEST = 600.0  # arguments of `exp` stay within
_LN2 = DD(np.array(0.6931471805599453), np.array(2.3190468138462996e-17))  # off by less than 2**-110
_HALVINGS = 8
_TERMS = 12
_INVERSE = [dd.from_fraction(Fraction(1, factorial(i))) for i in range(_TERMS + 1)]


def sqrt(x: DD) -> DD:
    """Square root of what is not negative, relative error below `ROOT`: one exact Newton step."""
    root = np.sqrt(x.hi)
    rest = dd.add(x, -dd.two_product(root, root))
    step = np.divide(rest.hi, 2 * root, out=np.zeros_like(root), where=root > 0)
    return dd.fast_two_sum(root, step)


def exp(x: DD) -> DD:
    """`e**x`, relative error below `EXP`, for |x| up to `FARTHEST`.

    `x = k ln 2 + 2**8 r`, |r| < 0.0014: twelve terms of the series in r leave less than 2**-140, Horner's
    rule rounds by less than 2**-98, and eight squarings double that eight times.
    """
    k = np.rint(x.hi / _LN2.hi)
    whole = dd.multiply(dd.exact(k), DD(np.full_like(k, _LN2.hi), np.full_like(k, _LN2.lo)))
    r = dd.add(x, -whole).scaled(2.0**-_HALVINGS)
    total = _like(_INVERSE[_TERMS], k)
    for coefficient in reversed(_INVERSE[:_TERMS]):
        total = dd.add(dd.multiply(total, r), _like(coefficient, k))
    for _ in range(_HALVINGS):
        total = dd.multiply(total, total)
    exponent = k.astype(np.int64)
    return DD(np.ldexp(total.hi, exponent), np.ldexp(total.lo, exponent))


def _like(value: DD, shape: np.ndarray) -> DD:
    return DD(np.full_like(shape, value.hi), np.full_like(shape, value.lo))
