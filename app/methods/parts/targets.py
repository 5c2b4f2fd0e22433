"""Real targets of a regression on a grid of their own, and their exact sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.methods.parts.model_settings import TargetGrid

LIMIT = 2**20 - 1  # grid steps


class OffGrid(ValueError):
    """A target is not finite, or outside the grid. `row` is the first such row."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class TargetSums:
    """Of targets t over rows x, integers all."""

    cross: NDArray[np.int64]  # (width,): sum of x t
    total: int
    squares: int

    @classmethod
    def from_rows(cls, cross: NDArray[np.int64], targets: NDArray[np.int64]) -> TargetSums:
        return cls(cross, int(targets.sum()), int((targets * targets).sum()))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> TargetSums:
        """Those that `arrays` came from."""
        total, squares = (int(value) for value in arrays["target_sums"].tolist())
        return cls(arrays["target_cross"].astype(np.int64), total, squares)

    def __add__(self, other: TargetSums) -> TargetSums:
        return TargetSums(self.cross + other.cross, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: TargetSums) -> TargetSums:
        return TargetSums(self.cross - other.cross, self.total - other.total, self.squares - other.squares)

    def any(self) -> bool:
        return bool(self.cross.any() or self.total or self.squares)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {"target_cross": self.cross, "target_sums": np.array([self.total, self.squares], np.int64)}


def on_grid(targets: NDArray[np.float64], grid: TargetGrid) -> NDArray[np.int64]:
    """(rows,) integers, each the target over `2**exponent` rounded half to even. Raises `OffGrid`."""
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets))[0])
        raise OffGrid(f"the target of row {row} is not a finite number", row)
    stepped = np.rint(np.ldexp(targets.astype(np.float64), -grid.exponent))
    if (np.abs(stepped) > LIMIT).any():
        row = int(np.flatnonzero(np.abs(stepped) > LIMIT)[0])
        raise OffGrid(
            f"the target of row {row} is outside the grid, which ends at +-{LIMIT} * 2**{grid.exponent}", row
        )
    return stepped.astype(np.int64)
