"""Rows that come one at a time, as lists of numbers and named values, collected into chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ValidationFailed
from app.intake.rows import Chunk, Source, block_rows, check_count, stored_size


def row_of(values: Any, row: int) -> NDArray[Any]:
    """One row of x from nested lists: float64 with NaN for null, or uint8 for an image of whole numbers."""
    wrong = ValidationFailed(f"row {row}: x is not a list of numbers", pointer=f"/x/{row}")
    if not isinstance(values, list):
        raise wrong
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = _with_nulls(array, wrong)
    except (ValueError, OverflowError):
        raise wrong from None
    if array.dtype.kind not in "buif":
        raise wrong
    if (
        array.ndim in (2, 3)
        and array.dtype.kind == "i"
        and array.size
        and 0 <= array.min() <= array.max() <= 255
    ):
        return array.astype(np.uint8)
    return array.astype(np.float64)


def _with_nulls(array: NDArray[Any], wrong: ValidationFailed) -> NDArray[np.float64]:
    for value in array.flat:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise wrong
    return array.astype(np.float64)


class Collected:
    """Rows of one width until they make a chunk. The first row decides the width and what rows may name."""

    def __init__(self, source: Source, names: tuple[str, ...] = ()) -> None:
        self.names = names
        self._limits = source.limits
        self._shape: tuple[int, ...] | None = None
        self._size = 1
        self._start()

    def __len__(self) -> int:
        return len(self._positions) + len(self._wrong)

    @property
    def full(self) -> bool:
        return len(self) >= self._size

    def add(self, position: int, x: NDArray[Any], extras: Mapping[str, Any]) -> None:
        """Append a row, or note that it has another width."""
        if self._shape is None:
            self._shape = x.shape
            self._size = block_rows(x.shape, stored_size(x.dtype, x.ndim + 1), self._limits)
        if x.shape != self._shape:
            self.skip(position)
            return
        self._positions.append(position)
        self._x.append(x)
        for name in self.names:
            self._extras[name].append(extras.get(name))

    def skip(self, position: int) -> None:
        """Note a row that cannot be read as one of this width."""
        check_count(position + 1, self._limits)
        self._wrong.append(position)

    def take(self) -> Chunk:
        """The rows so far, as a chunk; the next one is empty."""
        check_count(max(self._positions, default=0) + 1, self._limits)
        x = np.stack(self._x) if self._x else np.empty((0, *(self._shape or (1,))))
        target = self._extras.get("target")
        subject = self._extras.get("subject")
        chunk = Chunk(
            positions=np.array(self._positions, dtype=np.int64),
            x=x,
            label=self._extras.get("label"),
            sample_id=self._extras.get("sample_id"),
            subject=None if subject is None else [one if isinstance(one, list) else [one] for one in subject],
            split=self._extras.get("split"),
            target=None if target is None else target_of(target, self._positions),
            wrong=tuple(self._wrong),
        )
        self._start()
        return chunk

    def _start(self) -> None:
        self._positions: list[int] = []
        self._wrong: list[int] = []
        self._x: list[NDArray[Any]] = []
        self._extras: dict[str, list[Any]] = {name: [] for name in self.names}


def target_of(values: list[Any], positions: list[int]) -> NDArray[np.float64]:
    """One number a row; a missing one is not finite."""
    found = np.empty(len(values))
    for at, (value, row) in enumerate(zip(values, positions, strict=True)):
        try:
            if isinstance(value, bool | list | dict):
                raise ValueError
            found[at] = np.nan if value is None else float(value)
        except (ValueError, OverflowError):
            raise ValidationFailed(f"row {row}: target is not a number", pointer=f"/target/{row}") from None
    return found
