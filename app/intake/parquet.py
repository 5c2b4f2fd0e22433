"""Parquet: like CSV, or one list column `x`. pyarrow is optional; without it the format is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import UnsupportedMedia, ValidationFailed
from app.intake.rows import (
    FIELDS,
    LATER,
    Chunk,
    Source,
    block_rows,
    check_count,
    check_expansion,
    cut_off,
    refuse_names,
)

NAMED = tuple(name for name in FIELDS if name != "x")
SAMPLE = 1_024  # rows that are read to learn the width of a list column


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a Parquet file. A null is a missing value, which is not finite."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UnsupportedMedia("Parquet needs pyarrow: pip install 'palimpsest[columnar]'") from None
    source.file.seek(0)
    try:
        with pyarrow.parquet.ParquetFile(source.file, pre_buffer=False) as file:
            yield from _read(file, source)
    except (pyarrow.ArrowException, OSError, OverflowError):
        raise cut_off("the file") from None


def _read(file: Any, source: Source) -> Iterator[Chunk]:
    _check_size(file.metadata, source)
    names = list(file.schema_arrow.names)
    if len(set(names)) != len(names):
        raise ValidationFailed("two columns have one name")
    refuse_names([name for name in names if name in LATER], "column")
    features = [name for name in names if name not in NAMED]
    if not features:
        raise ValidationFailed("there is no feature column", pointer="/x")
    as_list = features == ["x"] and _is_list(file.schema_arrow.field("x").type)
    width = _width(file) if as_list else len(features)
    size = block_rows((width,), 4, source.limits)
    first = 0
    for batch in file.iter_batches(batch_size=size):
        rows = batch.num_rows
        x, kept = _list(batch, width) if as_list else (_columns(batch, features), np.arange(rows))
        batch = batch.take(kept) if len(kept) < rows else batch
        yield Chunk(
            positions=first + kept,
            x=x,
            label=_values(batch, "label"),
            sample_id=_values(batch, "sample_id"),
            subject=_subjects(batch),
            split=_values(batch, "split"),
            target=_numbers(batch.column("target"), "target") if "target" in names else None,
            wrong=tuple(first + int(row) for row in np.setdiff1d(np.arange(rows), kept)),
        )
        first += rows


def _check_size(metadata: Any, source: Source) -> None:
    check_count(metadata.num_rows, source.limits)
    expanded = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    check_expansion(expanded, source)


def _is_list(type: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type))


def _width(file: Any) -> int:
    """The width of the first row that has one."""
    import pyarrow.compute as compute

    for batch in file.iter_batches(batch_size=SAMPLE, columns=["x"]):
        lengths = compute.drop_null(compute.list_value_length(batch.column("x")))
        if len(lengths):
            return int(lengths[0].as_py())
    return 1


def _list(batch: Any, width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows of the width, and their indices in the batch."""
    import pyarrow.compute as compute

    column = batch.column("x")
    lengths = compute.fill_null(compute.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(lengths == width)
    values = compute.list_flatten(column.take(kept))
    return _numbers(values, "x").reshape(len(kept), width), kept


def _columns(batch: Any, features: Sequence[str]) -> NDArray[np.float64]:
    found = np.empty((batch.num_rows, len(features)))
    for index, name in enumerate(features):
        found[:, index] = _numbers(batch.column(name), name)
    return found


def _numbers(column: Any, name: str) -> NDArray[np.float64]:
    import pyarrow
    import pyarrow.types as types

    kind = column.type
    if not (
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    ):
        raise ValidationFailed(f"column {name!r} has to hold numbers, not {kind}", pointer=f"/{name}")
    if types.is_boolean(kind):
        column = column.cast(pyarrow.uint8())
    found: NDArray[np.float64] = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def _values(batch: Any, name: str) -> list[Any] | None:
    return batch.column(name).to_pylist() if name in batch.schema.names else None


def _subjects(batch: Any) -> list[Any] | None:
    found = _values(batch, "subject")
    return None if found is None else [one if isinstance(one, list) else [one] for one in found]
