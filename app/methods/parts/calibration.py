"""Prototypes of few-shot classes drawn towards those of base classes they resemble (TEEN), from centroids.

With unit vectors `p_c` of the class means: `w_cb = softmax_b(tau p_c . p_b)` over base classes,
`d_c = sum_b w_cb p_b` scaled to length one, `p'_c = (1 - alpha) p_c + alpha d_c`. A base class keeps `p_b`.
Prototypes are computed in double-double and rounded once, so they are a function of the centroids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

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
NEAREST = 5  # base classes that are named beside a few-shot one
BLOCK = 2**17  # numbers that are multiplied at once in double-double
BLOCK_BYTES = 256 * BLOCK
TABLE_BYTES = 32  # per feature of a class: its unit vector in double-double, and its prototype


def base_of(centroids: Mapping[str, Centroid], shots: int) -> tuple[str, ...]:
    """Classes of at least `shots` rows, by label key; where no class has as many, every class is one."""
    names = sorted(centroids, key=str.encode)
    enough = tuple(name for name in names if centroids[name].count >= shots)
    return enough or tuple(names)


def memory(width: int, classes: int) -> int:
    """Bytes that the head takes at most, beside the centroids."""
    return TABLE_BYTES * width * classes + BLOCK_BYTES


def calibrated_head(
    centroids: Mapping[str, Centroid], base: tuple[str, ...], tau: Fraction, alpha: Fraction
) -> tuple[Head, dict[str, dict[str, float]]]:
    """The cosine head of all classes in the order of their label keys, and for each few-shot class the
    weights of the `NEAREST` base classes that count most, those first.

    Raises `Undecided` where an entry cannot be rounded with certainty.
    """
    names = sorted(centroids, key=str.encode)
    units = _all_units([centroids[name] for name in names])
    known = set(base)
    is_base = np.array([name in known for name in names])
    anchors = _Anchors(units, np.flatnonzero(is_base))
    weight = np.empty((len(names), len(units.hi)), np.float32)
    weights: dict[str, dict[str, float]] = {}
    for i, name in enumerate(names):
        prototype = DD(units.hi[:, i : i + 1], units.lo[:, i : i + 1])
        error = UNIT_VECTOR * np.abs(prototype.hi)
        if not is_base[i]:
            prototype, error, share = _calibrated(prototype, anchors, tau, alpha)
            best = np.argsort(-share.hi[0], kind="stable")[:NEAREST]
            weights[name] = {base[j]: float(share.hi[0, j]) for j in best}
        rounded = round_to_float32(prototype, error)
        if rounded is None:
            raise Undecided(
                "a calibrated prototype cannot be rounded with certainty: a class's mean and the mixture it "
                "is drawn towards all but cancel (try another alpha or tau)"
            )
        weight[i] = rounded[:, 0]
    return Head(torch.from_numpy(weight), torch.zeros(len(names)), normalise=True), weights


def unit_vectors(sums: np.ndarray) -> DD:
    """Columns of (width, n) integers at length one, relative error below `UNIT_VECTOR`; zeros stay zeros."""
    x = sums.astype(np.float64)
    return _scaled(dd.exact(x), dd_functions.sqrt(dd.total(dd.two_product(x, x))))


def _all_units(centroids: Sequence[Centroid]) -> DD:
    """(width, classes), made a few columns at a time."""
    width = len(centroids[0].sum)
    hi, lo = np.empty((width, len(centroids))), np.empty((width, len(centroids)))
    step = max(1, BLOCK // width)
    for start in range(0, len(centroids), step):
        some = centroids[start : start + step]
        units = unit_vectors(np.stack([centroid.sum for centroid in some]).T)
        hi[:, start : start + step], lo[:, start : start + step] = units
    return DD(hi, lo)


@dataclass(frozen=True)
class _Anchors:
    """The base classes' columns of unit vectors (width, classes), which are not copied."""

    units: DD
    index: NDArray[np.int64]

    def cosines(self, own: DD) -> DD:
        """(1, base) with `own` (width, 1)."""
        step = max(1, BLOCK // len(own.hi))
        starts = range(0, len(self.index), step)
        parts = [dd.total(dd.multiply(own, self._part(columns=slice(i, i + step)))) for i in starts]
        return DD(np.hstack([part.hi for part in parts]), np.hstack([part.lo for part in parts]))

    def mixed(self, share: DD) -> DD:
        """(width, 1): their sum, each times its `share` (1, base)."""
        step = max(1, BLOCK // len(self.index))
        starts = range(0, len(self.units.hi), step)
        parts = [dd.total(dd.multiply(share, self._part(rows=slice(i, i + step))).T).T for i in starts]
        return DD(np.vstack([part.hi for part in parts]), np.vstack([part.lo for part in parts]))

    def _part(self, rows: slice = slice(None), columns: slice = slice(None)) -> DD:
        index = self.index[columns]
        return DD(self.units.hi[rows, index], self.units.lo[rows, index])


def _calibrated(own: DD, anchors: _Anchors, tau: Fraction, alpha: Fraction) -> tuple[DD, Array, DD]:
    """One prototype (width, 1), a bound on its entries' error, and its weights (1, base)."""
    share = softmax(dd.multiply(dd.wide(dd.from_fraction(tau)), anchors.cosines(own)))
    drawn = anchors.mixed(share)
    size = _length(drawn)
    drawn = _scaled(drawn, size)
    mixed = dd.add(
        dd.multiply(dd.wide(dd.from_fraction(1 - alpha)), own),
        dd.multiply(dd.wide(dd.from_fraction(alpha)), drawn),
    )
    length = _length(mixed)
    if not length.hi[0, 0]:  # zeros in, zeros out
        return mixed, np.zeros(1), share
    divided = (float(size.hi[0, 0]) or 1.0) * float(length.hi[0, 0])
    return _scaled(mixed, length), np.array([CALIBRATED / divided]), share


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
