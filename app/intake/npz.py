"""`.npz`: arrays by name in a zip, read side by side so that none has to fit in memory."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from app.errors import DimensionMismatch, UnsafeFormat, ValidationFailed
from app.intake.archive import members, opened
from app.intake.arrays import Header, header, numbers, same_length, subjects_of, targets, values
from app.intake.rows import (
    FIELDS,
    Chunk,
    Source,
    block_rows,
    check_count,
    cut_off,
    refuse_names,
    stored_size,
)


class Column:
    """One array of the archive, taken some rows at a time from its start."""

    def __init__(self, stream: IO[bytes], head: Header, name: str) -> None:
        self.stream, self.head, self.name = stream, head, name
        self._row = head.dtype.itemsize * int(np.prod(head.shape[1:], dtype=np.int64))

    def take(self, rows: int) -> NDArray[Any]:
        """The next rows; the last ones have to be whole."""
        raw = self.stream.read(rows * self._row)
        if len(raw) != rows * self._row:
            raise cut_off(f"array {self.name!r}", f"/{self.name}")
        return np.frombuffer(raw, self.head.dtype).reshape(rows, *self.head.shape[1:])


class ScratchColumn(Column):
    """An array stored column by column: unpacked to a scratch file, where rows can be picked."""

    def __init__(self, stream: IO[bytes], head: Header, name: str, source: Source) -> None:
        super().__init__(stream, head, name)
        with tempfile.TemporaryFile(dir=source.folder) as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            if file.tell() + head.length != head.bytes:
                raise cut_off(f"array {name!r}", f"/{name}")
            file.flush()
            self._all = np.memmap(file, dtype=head.dtype, mode="r", shape=head.shape, order="F")
        self._at = 0

    def take(self, rows: int) -> NDArray[Any]:
        self._at += rows
        return self._all[self._at - rows : self._at]


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a `.npz` file; also one with several subjects a row (`subject` and `subject_row`)."""
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(opened(source))
            yield from _read(_open(archive, source, stack), source)
    except (BadZipFile, EOFError, zlib.error, NotImplementedError):
        raise cut_off("the archive") from None


def _open(archive: ZipFile, source: Source, stack: ExitStack) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for info in members(archive, source):
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise UnsafeFormat("an .npz archive holds .npy arrays and nothing else")
        if name not in (*FIELDS, "subject_row"):
            refuse_names([name], "array")
        stream = stack.enter_context(archive.open(info))
        head = header(cast(Any, stream), name)
        if head.bytes != info.file_size:
            raise cut_off(f"array {name!r}", f"/{name}")
        if head.fortran and len(head.shape) > 1:
            columns[name] = ScratchColumn(stream, head, name, source)
        else:
            columns[name] = Column(stream, head, name)
    if "x" not in columns:
        raise ValidationFailed("there is no array 'x'", pointer="/x")
    return columns


def _read(columns: dict[str, Column], source: Source) -> Iterator[Chunk]:
    shape = columns["x"].head.shape
    if len(shape) < 2:
        raise DimensionMismatch("x has rows first, then one to three dimensions", pointer="/x")
    rows = shape[0]
    check_count(rows, source.limits)
    persons, person_rows = _persons(columns, rows, source)
    for name, column in columns.items():
        same_length(name, column.head.shape[0] if column.head.shape else 0, rows)
    size = block_rows(shape[1:], stored_size(columns["x"].head.dtype, len(shape)), source.limits)

    def next_values(name: str, count: int) -> Any:
        return values(columns[name].take(count), name) if name in columns else None

    for first in range(0, rows, size):
        count = min(size, rows - first)
        subject = next_values("subject", count)
        if person_rows is not None:
            subject = subjects_of(persons, person_rows, first, count)
        elif subject is not None:
            subject = [[one] for one in subject]
        yield Chunk(
            positions=np.arange(first, first + count),
            x=numbers(columns["x"].take(count), "x"),
            label=next_values("label", count),
            sample_id=next_values("sample_id", count),
            subject=subject,
            split=next_values("split", count),
            target=targets(columns["target"].take(count)) if "target" in columns else None,
        )


def _persons(columns: dict[str, Column], rows: int, source: Source) -> tuple[list[Any], NDArray[Any] | None]:
    """Subjects sorted by row and the row of each, where `subject_row` says so; takes both columns out."""
    index = columns.pop("subject_row", None)
    if index is None:
        return [], None
    subject = columns.pop("subject", None)
    if subject is None:
        raise ValidationFailed("subject_row without subject", pointer="/subject_row")
    if index.head.dtype.kind not in "iu" or len(index.head.shape) != 1 or len(subject.head.shape) != 1:
        raise ValidationFailed(
            "subject_row holds the row of each subject, as integers", pointer="/subject_row"
        )
    same_length("subject_row", index.head.shape[0], subject.head.shape[0])
    if subject.head.shape[0] > rows * source.limits.subjects_per_row:
        raise ValidationFailed("there are too many subjects", pointer="/subject")
    where = index.take(index.head.shape[0]).astype(np.int64)
    if len(where) and (where.min() < 0 or where.max() >= rows):
        raise ValidationFailed(f"subject_row names rows outside 0 to {rows - 1}", pointer="/subject_row")
    names = values(subject.take(subject.head.shape[0]), "subject")
    order = np.argsort(where, kind="stable")
    return [names[i] for i in order], where[order]
