"""What a parser is given and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.config import Limits
from app.errors import BodyTooLarge, DimensionMismatch, ValidationFailed

BLOCK_BYTES = 12 << 20  # of one shard
BLOCK_ROWS = 8_192
SHOWN = 20  # rows that an error or a report names
FIELDS = ("x", "label", "sample_id", "subject", "split", "target")
LATER = ("x_old", "x_new", "item", "query", "grade")  # names of pairs and relevance, not yet taken


@dataclass(frozen=True)
class Source:
    """An upload on disk, unlinked: it is gone when it is closed, or when the process dies."""

    file: BinaryIO
    bytes: int
    folder: Path  # for scratch files on the same disk
    limits: Limits


@dataclass(frozen=True)
class Chunk:
    """Rows as the file has them. `positions` count the rows of the file from 0, the unusable ones too."""

    positions: NDArray[np.int64]  # (b,)
    x: NDArray[Any]  # (b, ...)
    label: Sequence[Any] | None = None  # strings, integers or None
    sample_id: Sequence[Any] | None = None
    subject: Sequence[Sequence[Any]] | None = None
    split: Sequence[Any] | None = None
    target: NDArray[np.float64] | None = None
    wrong: Sequence[int] = ()  # positions of rows of another width, which are not among the rows
    declared: Sequence[str] = ()  # labels that the file lists, with or without rows


def block_rows(shape: Sequence[int], itemsize: int, limits: Limits) -> int:
    """How many rows of this shape make a chunk; refuses rows over the limit before any is read."""
    values = prod(shape)
    if not values:
        raise DimensionMismatch("the rows of x hold no values", pointer="/x")
    if len(shape) > 3:
        raise DimensionMismatch("x has one to three dimensions after the rows", pointer="/x")
    most = limits.features * (16 if len(shape) > 1 else 1)  # pixels are not features
    if values > most:
        raise BodyTooLarge(f"a row has {values} values; the limit is {most}", pointer="/x")
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // (values * itemsize)))


def check_count(rows: int, limits: Limits) -> None:
    """Refuse more rows than a dataset may have."""
    if rows > limits.samples:
        raise BodyTooLarge(f"more than {limits.samples} rows", pointer="/x")


def check_expansion(expanded: int, source: Source) -> None:
    """Refuse compressed data that grows beyond measure, before any of it is unpacked."""
    limits = source.limits
    if expanded > limits.expansion_ratio * source.bytes:
        raise BodyTooLarge(f"the file expands to more than {limits.expansion_ratio} times its size")
    if expanded > limits.expanded_bytes:
        raise BodyTooLarge(f"the file expands to more than {limits.expanded_bytes} bytes")


def stored_size(dtype: np.dtype[Any], dimensions: int) -> int:
    """Bytes of one value as it is stored: uint8 images stay, everything else is float32."""
    return 1 if is_image(dtype, dimensions) else 4


def is_image(dtype: np.dtype[Any], dimensions: int) -> bool:
    """Whether an array with so many dimensions, rows included, holds images."""
    return dtype == np.uint8 and dimensions in (3, 4)


def refuse_names(unknown: Sequence[str], kind: str) -> None:
    """Raise for names that this release takes nowhere."""
    for name in unknown:
        if name in LATER:
            raise ValidationFailed(
                f"{kind} {name!r}: pairs and relevance are not supported", pointer=f"/{name}"
            )
    if unknown:
        known = ", ".join(FIELDS)
        raise ValidationFailed(f"unknown {kind} {unknown[0]!r}; known are {known}", pointer=f"/{unknown[0]}")


def cut_off(what: str, pointer: str | None = None) -> ValidationFailed:
    """The error for a file that ends too early or does not add up."""
    return ValidationFailed(f"{what} is damaged or cut off", pointer=pointer)
