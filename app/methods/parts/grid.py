"""The fixed-point grid that features are put on before anything is accumulated (exact from here on).

A power-of-two scale that is part of the model's input spec and never fitted to rows. Every step is one
correctly rounded IEEE operation on exact integers, so the same row gives the same int16 values on any
machine, in any batch, with any number of threads.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

LIMIT = 32_767  # int16, symmetric
UNIT_BITS = 13  # a normalised row has length 2**13


class ExponentGrid(BaseModel):
    """Values are integers times `2**exponent`, clipped at +-32,767 of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exponent: Annotated[int, Field(ge=-40, le=40)]


Grid = Literal["normalised"] | ExponentGrid


def unit(grid: Grid) -> float:
    """The value of one grid step."""
    return 2.0 ** (-UNIT_BITS if grid == "normalised" else grid.exponent)


def quantise(x: NDArray[np.floating], grid: Grid) -> tuple[NDArray[np.int16], int]:
    """Put rows `x` (rows, width), finite, on the grid, rounding half to even.

    Returns the int16 rows and how many values were clipped. For `normalised`: `2**13 x / |x|`, the row
    first scaled by a power of two to 20-bit integers (18 above 8,192 columns) so that its sum of squares
    is an exact integer, then one square root and one division. A row of zeros stays zero.
    """
    x = np.ascontiguousarray(x, dtype=np.float64)
    if grid != "normalised":
        stepped = np.rint(np.ldexp(x, -grid.exponent))
        clipped = int(np.count_nonzero(np.abs(stepped) > LIMIT))
        return np.clip(stepped, -LIMIT, LIMIT).astype(np.int16), clipped
    bits = 20 if x.shape[1] <= 8_192 else 18
    largest = np.abs(x).max(axis=1, initial=0.0, keepdims=True)
    _, exponent = np.frexp(largest)  # largest < 2**exponent
    q = np.rint(np.ldexp(x, bits - exponent))  # |q| <= 2**bits, exact integers
    norm = np.sqrt(np.einsum("ij,ij->i", q, q))[:, None]  # the sum is below 2**53: exact in any order
    norm[norm == 0] = 1.0
    return np.rint(np.ldexp(q, UNIT_BITS) / norm).astype(np.int16), 0


def step_bits(grid: Grid) -> int:
    """`b` of a grid step of `2**-b`."""
    return UNIT_BITS if grid == "normalised" else -grid.exponent
