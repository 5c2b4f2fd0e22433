"""FeTrIL's donor choice: the new class whose rows stand in for those of a past class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Centroid

Rule = Literal["cosine", "euclidean"]
NEAR = 1e-9  # candidates this near to the best are told apart in integers, not in float64


@dataclass(frozen=True)
class Donors:
    """For every past class: the donor's index among the new classes, and how near it is by both measures."""

    index: NDArray[np.int64]  # (past,)
    cosine: NDArray[np.float64]  # (past,)
    distance: NDArray[np.float64]  # (past,), in grid units


def choose(past: Sequence[Centroid], new: Sequence[Centroid], rule: Rule) -> Donors:
    """The most similar of `new` for each of `past`; of equals the first.

    One past class at a time, so that no (past, new, width) array is made. The choice is a function of the
    integers in the centroids: what rounding could decide, they decide.
    """
    index = np.zeros(len(past), np.int64)
    cosine = np.zeros(len(past))
    distance = np.zeros(len(past))
    means = np.stack([centroid.mean() for centroid in new])
    lengths = np.sqrt((means * means).sum(axis=1))
    for i, centroid in enumerate(past):
        mean = centroid.mean()
        norms = lengths * np.sqrt((mean * mean).sum())
        cosines = np.divide((means * mean).sum(axis=1), norms, out=np.zeros(len(new)), where=norms > 0)
        distances = np.sqrt(((means - mean) ** 2).sum(axis=1))
        best = _best(centroid, new, cosines if rule == "cosine" else -distances, rule)
        index[i], cosine[i], distance[i] = best, cosines[best], distances[best]
    return Donors(index, cosine, distance)


def _best(past: Centroid, new: Sequence[Centroid], nearness: NDArray[np.float64], rule: Rule) -> int:
    best = float(nearness.max())
    close = np.flatnonzero(nearness >= best - NEAR * max(1.0, abs(best))).tolist()
    if len(close) == 1:
        return int(close[0])
    exact = _cosine if rule == "cosine" else _closeness
    return int(max(close, key=lambda i: exact(past, new[i])))  # the first of equals


def _cosine(a: Centroid, b: Centroid) -> Fraction:
    """The cosine of both means times its own magnitude and the square of a's length: a rational."""
    x, y = [int(v) for v in a.sum], [int(v) for v in b.sum]
    inner = sum(p * q for p, q in zip(x, y, strict=True))
    square = sum(q * q for q in y)
    return Fraction(inner * abs(inner), square) if square else Fraction(0)


def _closeness(a: Centroid, b: Centroid) -> Fraction:
    """Minus the squared distance of both means."""
    pairs = zip(a.sum.tolist(), b.sum.tolist(), strict=True)
    gap = sum((p * b.count - q * a.count) ** 2 for p, q in pairs)
    return -Fraction(gap, (a.count * b.count) ** 2)
