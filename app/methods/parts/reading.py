"""Blocks on their way to a method, with progress told after each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Context


def reported(
    blocks: Iterable[NDArray[np.int16]], ctx: Context, total: int, phase: str, done: int = 0
) -> Iterator[NDArray[np.int16]]:
    """The same blocks; every row counts one unit of `total`, from `done` on."""
    for block in blocks:
        yield block
        done += len(block)
        ctx.report(done, total, phase)
