"""Scores of a linear head on grid features, the same bits for a row alone, in any batch, on any machine."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.methods import networks
from app.methods.base import Head, Snapshot
from app.methods.parts.expansion import Expansion, expand, largest_value, longest_row
from app.methods.parts.grid import LIMIT, Grid, unit


class Scorer:
    """A head made ready: build it once per version and keep it.

    Features are integers, so with weights on a fixed-point grid too every product and every partial sum is
    an integer below 2**53, which float64 holds exactly, whatever order BLAS adds in. Each class has its own
    power of two; `bits` is what a row of the largest features leaves (29 at 512 columns, 22 at 65,536), so
    a score is off by at most `width * 2**(-bits - 1)` of the class's largest weight times the row's largest
    value. What follows is one correctly rounded operation each: square root, division, bias, float32.

    An `expanded` head reads `expand(row)`, exact integers too; their bound is that of the projection's
    columns times the longest row, so `expansion` and the row's `inputs` (columns before it) must be given.
    """

    def __init__(
        self, head: Head, grid: Grid, expansion: Expansion | None = None, inputs: int | None = None
    ) -> None:
        weight = head.weight.detach().cpu().numpy().astype(np.float64)  # (classes, width)
        self.expansion = None
        largest = LIMIT
        if head.expanded:
            if expansion is None or inputs is None:
                raise ValueError("an expanded head needs its expansion and the width of rows before it")
            self.expansion, self.longest = expansion, longest_row(inputs, grid == "normalised")
            largest = max(1, largest_value(expansion, inputs, self.longest))
        bits = 52 - ceil(log2(largest)) - ceil(log2(weight.shape[1]))
        _, exponent = np.frexp(np.abs(weight).max(axis=1, initial=0.0))  # largest < 2**exponent
        self.weight = np.rint(np.ldexp(weight, (bits - exponent)[:, None]))  # (classes, width), integers
        self.step = np.ldexp(1.0, exponent - bits)  # (classes,), powers of two
        if not head.normalise:
            self.step = self.step * unit(grid)
        self.bias = head.bias.detach().cpu().numpy().astype(np.float64)  # (classes,)
        self.normalise = head.normalise

    def __call__(self, features: NDArray[np.int16]) -> NDArray[np.float32]:
        """(rows, width) grid features to (rows, classes) scores. A row of zeros scores the bias."""
        return self.of_rows(self.rows(features))

    def rows(self, features: NDArray[np.int16]) -> NDArray[np.integer[Any]]:
        """The rows that the head reads: expanded where it is."""
        return features if self.expansion is None else expand(features, self.expansion, self.longest)

    def of_rows(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The scores of `rows` of these features: heads of one model read the same."""
        x = rows.astype(np.float64)
        products = (x @ self.weight.T) * self.step
        if self.normalise:
            length = np.sqrt(np.einsum("ij,ij->i", x, x))  # of an exact integer
            length[length == 0] = 1.0
            products /= length[:, None]
        scores: NDArray[np.float32] = (products + self.bias).astype(np.float32)
        return scores

    def values(self, features: NDArray[np.int16]) -> NDArray[np.float32]:
        """(rows,): what a regression predicts, in the unit of its targets."""
        return self(features)[:, 0]


def scorer_of(version: Snapshot) -> Scorer:
    """The scorer of a version's head."""
    if version.head is None:
        raise ValueError("this version has no head")
    inputs = networks.width(version.network, version.input)
    return Scorer(version.head, version.grid, version.expansion, inputs)


def top_k(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `k` best classes of each row, best first (of equals the earlier class), and their scores."""
    if k == 1:
        best: NDArray[Any] = scores.argmax(axis=1)[:, None]
    else:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best, np.take_along_axis(scores, best, axis=1)
