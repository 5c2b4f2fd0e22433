"""Pseudo-features without their matrix: rows of new classes moved to past centroids, made unit length.

A pseudo-row is `z = (x + d) / |x + d|` with `x` a row of a donor and `d = mu_past - mu_donor`. So
`z W = (x W + d W) / |x + d|`: matrix products cost the new rows and the offsets only, and what is left per
pseudo-row is one number per class, worked on in blocks of one donor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 256  # of a donor, in one block
NUMBERS = {"cpu": 2**20, "cuda": 2**25}  # scores in one block: what a cache, or a GPU, takes well


@dataclass(frozen=True)
class Block:
    """Some rows of one donor, each moved by some of its offsets; the donor itself is moved by zero."""

    rows: slice  # of `Translation.rows`
    offsets: slice  # of `Translation.offsets`
    targets: Tensor  # (t,) the class that each offset leads to
    scale: Tensor  # (t, n, 1) 1 / |x + d|, zero where x + d is
    sums: Tensor  # (t, 2, n) the scale and ones: both sums over the rows in one product


@dataclass(frozen=True)
class Own:
    """Where in scores (t, n, columns) each pseudo-row meets the column of its own class, if that is there."""

    target: Tensor  # (s,) of the t
    column: Tensor  # (s,)

    def get(self, scores: Tensor) -> Tensor:
        """(s, n)"""
        return scores[self.target, :, self.column]

    def set(self, scores: Tensor, values: Tensor) -> None:
        scores[self.target, :, self.column] = values


Residual = Callable[[Tensor, Own], Tensor]


@dataclass(frozen=True)
class Translation:
    """All rows of an update, real and pseudo, in factors."""

    rows: Tensor  # (n, width) of the new classes, class by class
    offsets: Tensor  # (offsets, width)
    blocks: tuple[Block, ...]
    classes: int
    count: int  # of real and pseudo-rows

    def gradient(self, weight: Tensor, bias: Tensor, columns: Tensor, residual: Residual) -> Tensor:
        """Sum over all rows of the outer product of (z, 1) and what `residual` makes of its scores.

        `weight` (width, k) and `bias` (k,) belong to the classes `columns` (k,); gives (width + 1, k).
        `residual` may overwrite the scores (t, n, k) that it is given.
        """
        place = torch.full((self.classes,), -1, device=columns.device)
        place[columns] = torch.arange(len(columns), device=columns.device)
        of_rows, of_offsets = self.rows @ weight, self.offsets @ weight
        to_rows, to_offsets = torch.zeros_like(of_rows), torch.zeros_like(of_offsets)
        total = torch.zeros_like(bias)
        for block in self.blocks:
            column = place[block.targets]
            there = (column >= 0).nonzero()[:, 0]
            moved = of_rows[block.rows] + of_offsets[block.offsets, None]
            left = residual(torch.addcmul(bias, block.scale, moved), Own(there, column[there]))
            sums = torch.bmm(block.sums, left)  # (t, 2, k)
            to_offsets[block.offsets] += sums[:, 0]
            total += sums[:, 1].sum(0)
            to_rows[block.rows] += left.mul_(block.scale).sum(0)
        return torch.cat([self.rows.T @ to_rows + self.offsets.T @ to_offsets, total[None]])


def translate(
    rows: NDArray[np.int16],
    step: float,
    labels: NDArray[np.int64],
    offsets: Sequence[NDArray[np.float64]],
    targets: Sequence[Sequence[int]],
    classes: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Translation:
    """Factors of the pseudo-features of grid rows (n, width), whose `labels` number the new classes.

    `step` is the value of one grid unit. New class `g` is moved by each of `offsets[g]` (t, width), once to
    each of the classes `targets[g]`.
    """
    order = np.argsort(labels, kind="stable")
    rows = rows[order]
    ends = np.cumsum(np.bincount(labels, minlength=len(offsets)))
    blocks, first_row, first_offset, count = [], 0, 0, 0
    most = NUMBERS["cuda" if device.type == "cuda" else "cpu"]
    for donor, end in enumerate(ends):
        own = rows[first_row:end].astype(np.float64) * step
        scale = inverse_lengths(own, offsets[donor])  # (t, n)
        for r in _pieces(len(own), ROWS):
            for t in _pieces(len(scale), max(1, most // (classes * min(ROWS, len(own) or 1)))):
                inverse = torch.tensor(scale[t, r], dtype=dtype, device=device)
                blocks.append(
                    Block(
                        slice(first_row + r.start, first_row + r.stop),
                        slice(first_offset + t.start, first_offset + t.stop),
                        torch.tensor(targets[donor][t], device=device),
                        inverse[:, :, None],
                        torch.stack([inverse, torch.ones_like(inverse)], 1),
                    )
                )
        first_row, first_offset, count = int(end), first_offset + len(scale), count + scale.size
    return Translation(
        torch.tensor(rows, device=device).to(dtype) * step,
        torch.tensor(np.concatenate(offsets), dtype=dtype, device=device),
        tuple(blocks),
        classes,
        count,
    )


def inverse_lengths(rows: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(t, n): `1 / |x + d|` of rows (n, width) and offsets (t, width), zero where they cancel."""
    squares = (rows * rows).sum(1)[None] + (offsets * offsets).sum(1)[:, None]
    lengths = squares + 2 * offsets @ rows.T
    lengths[lengths < 1e-12 * squares] = 0.0  # what rounding leaves of x + d = 0
    inverse: NDArray[np.float64] = np.zeros_like(lengths)
    np.divide(1.0, np.sqrt(lengths), out=inverse, where=lengths > 0)
    return inverse


def _pieces(length: int, most: int) -> Iterator[slice]:
    return (slice(i, min(i + most, length)) for i in range(0, length, most))
