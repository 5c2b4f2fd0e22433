"""A seeded random expansion with integer arithmetic throughout: `max(0, x B) >> 9`.

RanPAC (McDonnell et al., 2023) and ACIL (Zhuang et al., 2022) expand frozen features by a random projection
and a ReLU before the ridge. Here the projection is signed bytes from SHAKE-256 and the product a sum of
integers, so no kernel, batch shape, device or generator can change a bit of it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

SHIFT = 9
CLIP = 32_767  # int16, symmetric: the largest value on any grid
UNIT_LENGTH = 2**13  # of a row on the normalised grid


class Expansion(BaseModel):
    """Part of a model for ever: another seed or width is another feature space."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=16_384, description="Columns after the expansion.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the projection.")


@lru_cache(maxsize=4)
def projection(seed: int, rows: int, width: int) -> NDArray[np.int8]:
    """B, (rows, width) signed bytes: SHAKE-256 of `palimpsest`, seed, rows, width as 8-byte little-endian."""
    name = b"palimpsest" + b"".join(n.to_bytes(8, "little") for n in (seed, rows, width))
    raw = hashlib.shake_256(name).digest(rows * width)
    return np.frombuffer(raw, dtype=np.int8).reshape(rows, width)


def expand(x: NDArray[np.int16], expansion: Expansion, longest: float) -> NDArray[np.int32]:
    """(rows, width) of `max(0, x B) >> 9` for grid features `x` (rows, d) of length at most `longest`.

    By Cauchy-Schwarz no partial sum of a product is larger than `norm(column of B) * longest`: below 2**24
    float32 holds them all, otherwise float64 does.
    """
    b, _ = _prepared(expansion.seed, x.shape[1], expansion.width, longest)
    product = x.astype(b.dtype) @ b
    # Scaling by a power of two is exact, so flooring is the shift.
    shifted: NDArray[np.int32] = np.floor(np.ldexp(np.maximum(product, 0), -SHIFT)).astype(np.int32)
    return shifted


def largest_value(expansion: Expansion, inputs: int, longest: float) -> int:
    """What no expanded feature exceeds, of rows of `inputs` features and length at most `longest`."""
    _, longest_column = _prepared(expansion.seed, inputs, expansion.width, longest)
    return ceil(longest_column * longest) >> SHIFT


def longest_row(inputs: int, normalised: bool) -> float:
    """The largest row norm that the grid allows: `2**13 + sqrt(d) / 2`, or clipping times `sqrt(d)`."""
    return UNIT_LENGTH + sqrt(inputs) / 2 if normalised else CLIP * sqrt(inputs)


@lru_cache(maxsize=2)
def _prepared(seed: int, inputs: int, width: int, longest: float) -> tuple[NDArray[np.floating], float]:
    """B in the type that multiplies exactly, and the norm of its longest column."""
    b = projection(seed, inputs, width).astype(np.float64)
    lengths: list[float] = np.linalg.norm(b, axis=0).tolist()
    longest_column = max(lengths)
    single = longest_column * longest < 2**24
    return b.astype(np.float32) if single else b, longest_column
