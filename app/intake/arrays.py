"""NumPy arrays from a file: headers without pickle, columns as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import UnsafeFormat, ValidationFailed
from app.intake.rows import cut_off

MOST_DIMENSIONS = 32
# what NumPy raises for a header that is no literal, or not the one it wants
UNREADABLE = (
    ValueError,
    TypeError,
    EOFError,
    SyntaxError,
    TokenError,
    RecursionError,
    MemoryError,
    UserWarning,
)


@dataclass(frozen=True)
class Header:
    """What a `.npy` file says of itself."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    length: int  # bytes of the header

    @property
    def bytes(self) -> int:
        """Bytes of the whole file."""
        return self.length + prod(self.shape) * self.dtype.itemsize


def header(stream: BinaryIO, name: str) -> Header:
    """Read a header; the stream stands at the first value after it. Objects (pickles) are refused."""
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(stream)
        else:
            raise ValidationFailed(
                f"array {name!r}: versions 1 and 2 of the format are read", pointer=f"/{name}"
            )
    except UNREADABLE:
        raise cut_off(f"the header of array {name!r}", f"/{name}") from None
    if not is_shape(shape):
        raise cut_off(f"the header of array {name!r}", f"/{name}")
    if dtype.hasobject:
        raise UnsafeFormat(f"array {name!r} holds objects, which would need pickle", pointer=f"/{name}")
    if dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise ValidationFailed(f"array {name!r} has a type that is not taken", pointer=f"/{name}")
    return Header(shape, fortran, dtype, stream.tell())


def is_shape(shape: tuple[Any, ...]) -> bool:
    """Whether a header's shape is one: NumPy takes True and -1 for sizes."""
    return len(shape) <= MOST_DIMENSIONS and all(type(size) is int and 0 <= size < 2**63 for size in shape)


def numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array, if it holds numbers."""
    if array.dtype.kind not in "buif":
        raise ValidationFailed(f"{name} has to hold numbers, not {array.dtype}", pointer=f"/{name}")
    return array


def targets(array: NDArray[Any]) -> NDArray[np.float64]:
    """One number a row."""
    if array.ndim != 1:
        raise ValidationFailed("target has one number a row", pointer="/target")
    return numbers(array, "target").astype(np.float64)


def values(array: NDArray[Any], name: str) -> Sequence[Any]:
    """Strings or integers, one a row, as Python values."""
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise ValidationFailed(f"{name} has to hold one string or integer a row", pointer=f"/{name}")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise ValidationFailed(f"{name} has to be UTF-8", pointer=f"/{name}") from None
    found: list[Any] = array.tolist()
    return found


def same_length(name: str, length: int, rows: int) -> None:
    """Refuse a column that does not have one value a row."""
    if length != rows:
        raise ValidationFailed(f"{name} has {length} values for {rows} rows of x", pointer=f"/{name}")


def subjects_of(
    subject: Sequence[Any], rows: NDArray[Any] | None, first: int, count: int
) -> Sequence[Sequence[Any]]:
    """The subjects of `count` rows from `first` on; `rows`, sorted, names the row of each subject."""
    if rows is None:
        return [[one] for one in subject[first : first + count]]
    bounds = np.searchsorted(rows, np.arange(first, first + count + 1))
    return [subject[bounds[i] : bounds[i + 1]] for i in range(count)]
