"""FeTrIL's donor choice: the new class whose rows stand in for those of a past class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["cosine", "euclidean"]


@dataclass(frozen=True)
class Donors:
    """For every past class: the donor's index among the new classes, and how near it is by both measures."""

    index: NDArray[np.int64]  # (past,)
    cosine: NDArray[np.float64]  # (past,)
    distance: NDArray[np.float64]  # (past,)


def choose(past: NDArray[np.float64], new: NDArray[np.float64], rule: Rule) -> Donors:
    """The most similar of `new` (new, width) for each of `past` (past, width); the first of equals.

    One past class at a time, row by row, so that equal centroids get equal numbers wherever they stand
    (a matrix product may round them apart) and no (past, new, width) array is made.
    """
    index = np.zeros(len(past), np.int64)
    cosine = np.zeros(len(past))
    distance = np.zeros(len(past))
    lengths = np.sqrt((new * new).sum(axis=1))
    for i, mean in enumerate(past):
        norms = lengths * np.sqrt((mean * mean).sum())
        cosines = np.divide((new * mean).sum(axis=1), norms, out=np.zeros(len(new)), where=norms > 0)
        distances = np.sqrt(((new - mean) ** 2).sum(axis=1))
        best = int(np.argmax(cosines) if rule == "cosine" else np.argmin(distances))
        index[i], cosine[i], distance[i] = best, cosines[best], distances[best]
    return Donors(index, cosine, distance)
