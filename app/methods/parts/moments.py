"""Second moments of FeTrIL's pseudo-features as exact integers; no pseudo-feature is made.

A past class's pseudo-features are its donor's rows moved as a whole, so their scatter about their mean is the
donor's own and their mean is the past centroid. The pooled scatter of all classes is therefore a sum over the
new rows, each counted as often as its class stands for one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from app.methods.parts.discriminant import Scatter
from app.methods.parts.statistics import BLOCK, EXACT, TooLarge


def pooled_scatter(
    labels: NDArray[np.int64], blocks: Iterable[NDArray[np.int16]], shares: NDArray[np.int64], width: int
) -> Scatter:
    """The scatter of every class of `labels` about its mean, counted `shares` (classes,) times, added up.

    Every partial sum is at most the largest weighted sum of squares of a feature, which stays below 2**53, so
    the Gram is exact. Raises `TooLarge` where it would not.
    """
    gram, diagonal = np.zeros((width, width)), np.zeros(width)
    sums = np.zeros((len(shares), width), np.int64)
    read = 0
    for block in blocks:
        for first in range(0, len(block), BLOCK):
            x = block[first : first + BLOCK].astype(np.float64)
            own = labels[read : read + len(x)]
            weighted = x * shares[own, None]
            diagonal += (weighted * x).sum(axis=0)
            if diagonal.max(initial=0.0) >= EXACT:
                raise TooLarge("the pseudo-features add up to 2**53 or more: they cannot be summed exactly")
            gram += weighted.T @ x
            np.add.at(sums, own, block[first : first + BLOCK].astype(np.int64))
            read += len(x)
    counts = np.bincount(labels, minlength=len(shares)).astype(np.int64)
    return Scatter(gram, sums, counts, shares, int(shares @ counts))
