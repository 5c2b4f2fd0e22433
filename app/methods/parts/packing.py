"""A symmetric matrix of integers as the rows of its upper triangle, one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def packed_length(width: int) -> int:
    return width * (width + 1) // 2


def row_starts(width: int) -> Integers:
    """Where row i begins: its diagonal entry."""
    i = np.arange(width, dtype=np.int64)
    return i * width - i * (i - 1) // 2


def pack(upper: NDArray[np.float64]) -> Integers:
    """The upper triangle of a square matrix of integers."""
    width = len(upper)
    packed = np.empty(packed_length(width), dtype=np.int64)
    for i, start in enumerate(row_starts(width)):
        packed[start : start + width - i] = upper[i, i:]
    return packed


def unpack(packed: Integers, width: int) -> NDArray[np.float64]:
    """(width, width) float64, each entry an exact integer below 2**53. Memory: `8 width**2` bytes."""
    full = np.empty((width, width))
    for i, start in enumerate(row_starts(width)):
        row = packed[start : start + width - i]
        full[i, i:] = row
        full[i:, i] = row
    return full
