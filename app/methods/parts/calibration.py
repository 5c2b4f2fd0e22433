"""Prototypes of few-shot classes drawn towards those of base classes they resemble (TEEN), from centroids.

With unit vectors `p_c` of the class means: `w_cb = softmax_b(tau p_c . p_b)` over base classes,
`d_c = sum_b w_cb p_b` scaled to length one, `p'_c = (1 - alpha) p_c + alpha d_c`. A base class keeps `p_b`.
Prototypes are computed in double-double and rounded once, so they are a function of the centroids.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch

from app.methods.base import Centroid, Head
from app.methods.parts import dd_functions
from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, Array
from app.methods.parts.rounding import Undecided, round_to_float32

# What a unit vector is off by, relative, up to 65,536 features: a quotient by a root of a sum of squares.
UNIT_VECTOR = 2.0**-97
# What a calibrated prototype is off by, times the lengths it was divided by. Up to a temperature of 256 the
# exponents are off by 2**8 times the `2**-95` of a cosine, the weights by 2**-85, and so is their mixture.
CALIBRATED = 2.0**-80
HOTTEST = 256


def base_of(centroids: Mapping[str, Centroid], shots: int) -> tuple[str, ...]:
    """Classes of at least `shots` rows, by label key; where no class has as many, every class is one."""
    names = sorted(centroids, key=str.encode)
    enough = tuple(name for name in names if centroids[name].count >= shots)
    return enough or tuple(names)


def calibrated_head(
    centroids: Mapping[str, Centroid], base: tuple[str, ...], tau: Fraction, alpha: Fraction
) -> tuple[Head, dict[str, dict[str, float]]]:
    """The cosine head of all classes in the order of their label keys, and each few-shot class's base
    weights.

    Raises `Undecided` where an entry cannot be rounded with certainty.
    """
    names = sorted(centroids, key=str.encode)
    units = unit_vectors(np.stack([centroids[name].sum for name in names]).T)
    is_base = np.array([name in base for name in names])
    anchors = DD(units.hi[:, is_base], units.lo[:, is_base])
    hi, lo = units.hi.copy(), units.lo.copy()
    error = UNIT_VECTOR * np.abs(hi)
    weights: dict[str, dict[str, float]] = {}
    for i in np.flatnonzero(~is_base):
        own = DD(units.hi[:, i : i + 1], units.lo[:, i : i + 1])
        found, lost, share = _calibrated(own, anchors, tau, alpha)
        hi[:, i], lo[:, i], error[:, i] = found.hi[:, 0], found.lo[:, 0], lost
        weights[names[i]] = dict(zip(base, map(float, share.hi[0]), strict=True))
    rounded = round_to_float32(DD(hi, lo), error)
    if rounded is None:
        raise Undecided(
            "a calibrated prototype cannot be rounded with certainty: a class's mean and the mixture it is "
            "drawn towards all but cancel (try another alpha or tau)"
        )
    weight = torch.from_numpy(np.ascontiguousarray(rounded.T))
    return Head(weight, torch.zeros(len(names)), normalise=True), weights


def unit_vectors(sums: np.ndarray) -> DD:
    """Columns of (width, n) integers at length one, relative error below `UNIT_VECTOR`; zeros stay zeros."""
    x = sums.astype(np.float64)
    return _scaled(dd.exact(x), dd_functions.sqrt(dd.total(dd.two_product(x, x))))


def _calibrated(own: DD, anchors: DD, tau: Fraction, alpha: Fraction) -> tuple[DD, float, DD]:
    """One prototype (width, 1), a bound on its entries' error, and its weights (1, base)."""
    cosines = dd.total(dd.multiply(own, anchors))
    share = softmax(dd.multiply(dd.wide(dd.from_fraction(tau)), cosines))
    drawn = dd.total(dd.multiply(share, anchors).T).T
    size = _length(drawn)
    drawn = _scaled(drawn, size)
    mixed = dd.add(
        dd.multiply(dd.wide(dd.from_fraction(1 - alpha)), own),
        dd.multiply(dd.wide(dd.from_fraction(alpha)), drawn),
    )
    length = _length(mixed)
    if not length.hi[0, 0]:  # zeros in, zeros out
        return mixed, 0.0, share
    divided = (float(size.hi[0, 0]) or 1.0) * float(length.hi[0, 0])
    return _scaled(mixed, length), CALIBRATED / divided, share


def softmax(x: DD) -> DD:
    """(1, n)."""
    largest = x.hi.argmax(axis=1)
    powers = dd_functions.exp(dd.add(x, -DD(x.hi[:, largest], x.lo[:, largest])))
    return dd.divide(powers, dd.total(powers.T))


def _length(x: DD) -> DD:
    return dd_functions.sqrt(dd.total(dd.multiply(x, x)))


def _scaled(x: DD, length: DD) -> DD:
    """Columns over their lengths; a column of length zero is zeros."""
    there: Array = np.where(length.hi > 0, length.hi, 1.0)
    return dd.divide(x, DD(there, length.lo))
