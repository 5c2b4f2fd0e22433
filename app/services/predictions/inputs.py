"""Rows of a prediction: JSON values or a `.npy` body, checked against the model's input."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import (
    BodyTooLarge,
    DimensionMismatch,
    InvalidRequest,
    NonFinite,
    UnsafeFormat,
    UnsupportedMedia,
    ValidationFailed,
)
from app.intake.arrays import UNREADABLE, is_shape
from app.methods.networks.spec import InputSpec

POINTER = "/inputs"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npy(body: bytes) -> NDArray[Any]:
    """The array in a `.npy` body, without a copy. Only numbers: what could carry code is refused."""
    if not body.startswith(npy.MAGIC_PREFIX):
        raise UnsafeFormat("the body does not begin like a .npy file")
    file = io.BytesIO(body)
    try:
        read_header = HEADERS.get(npy.read_magic(file))
        if read_header is None:
            raise UnsupportedMedia("this version of the .npy format is not supported")
        shape, fortran_order, dtype = read_header(file)
    except UNREADABLE:
        raise InvalidRequest("the header of the .npy body cannot be read") from None
    if not is_shape(shape):
        raise ValidationFailed("the header of the .npy body is damaged: it has no shape", pointer=POINTER)
    if dtype.hasobject:
        raise UnsafeFormat("an array of objects can carry code")
    if dtype.names or dtype.subdtype or not dtype.itemsize or 0 in shape:
        raise ValidationFailed("inputs are rows of numbers", pointer=POINTER)
    rest = memoryview(body)[file.tell() :]
    if len(rest) != prod(shape) * dtype.itemsize:
        raise InvalidRequest("the .npy body is shorter or longer than its header says")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran_order else "C")


def check_rows(values: Sequence[Any] | NDArray[Any], spec: InputSpec, most: int) -> NDArray[Any]:
    """(rows, *shape) as the model stores rows: uint8 images, float32 vectors and tables.

    Raises `BodyTooLarge`, `DimensionMismatch`, `NonFinite` or `ValidationFailed`, each with the first row
    that is wrong.
    """
    if isinstance(values, np.ndarray) and values.ndim == 0:
        raise ValidationFailed("inputs are rows of numbers", pointer=POINTER)
    if not 1 <= len(values) <= most:
        kind = BodyTooLarge if len(values) else ValidationFailed
        raise kind(f"a prediction has 1 to {most} rows, not {len(values)}", pointer=POINTER)
    rows = values if isinstance(values, np.ndarray) else _array(values, spec)
    if rows.shape[1:] != spec.shape:
        raise _wrong_shape(0, rows.shape[1:], spec)
    if rows.dtype.kind not in "iuf":
        raise ValidationFailed("inputs are numbers", pointer=POINTER)
    return _images(rows) if spec.kind == "image" else _floats(rows)


def _array(values: Sequence[Any], spec: InputSpec) -> NDArray[Any]:
    try:
        rows = np.asarray(values)
    except ValueError:  # rows of different shapes
        for i, row in enumerate(values):
            try:
                shape = np.asarray(row).shape
            except ValueError:
                raise DimensionMismatch(f"row {i} is ragged", pointer=f"{POINTER}/{i}") from None
            if shape != spec.shape:
                raise _wrong_shape(i, shape, spec) from None
        raise ValidationFailed("inputs are rows of numbers", pointer=POINTER) from None
    return rows


def _wrong_shape(row: int, shape: tuple[int, ...], spec: InputSpec) -> DimensionMismatch:
    detail = f"row {row} has shape {list(shape)}; the model's input is {spec.kind} {list(spec.shape)}"
    return DimensionMismatch(detail, pointer=f"{POINTER}/{row}")


def _images(rows: NDArray[Any]) -> NDArray[np.uint8]:
    if rows.dtype == np.uint8:
        return rows
    if rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() > 255:
        bad = rows.dtype.kind not in "iu" or (rows < 0) | (rows > 255)
        first = 0 if isinstance(bad, bool) else _first(bad)
        raise ValidationFailed("images are whole numbers from 0 to 255", pointer=f"{POINTER}/{first}")
    return rows.astype(np.uint8)


def _floats(rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single: NDArray[np.float32] = rows.astype(np.float32)
    finite = np.isfinite(single)
    if not finite.all():
        first = _first(~finite)
        raise NonFinite(f"row {first} has a value that is no finite float32", pointer=f"{POINTER}/{first}")
    return single


def _first(bad: NDArray[np.bool_]) -> int:
    """The first row with something bad in it."""
    return int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
