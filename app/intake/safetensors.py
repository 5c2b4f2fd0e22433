"""safetensors: `label` int64 with names as JSON in the metadata key `classes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from app.errors import DimensionMismatch, ValidationFailed
from app.intake.arrays import numbers, same_length, subjects_of, targets, values
from app.intake.rows import FIELDS, Chunk, Source, block_rows, check_count, cut_off, refuse_names, stored_size

DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BOOL": "?",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1",
}  # fmt: skip
NAMES = TypeAdapter(list[str])


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a file whose `sample_id`, `subject` and `split` (0 train, 1 eval) are integers."""
    source.file.flush()
    try:
        with safe_open(f"/dev/fd/{source.file.fileno()}", framework="numpy") as file:
            yield from _read(file, source)
    except SafetensorError:
        raise cut_off("the file") from None


def _read(file: Any, source: Source) -> Iterator[Chunk]:
    names = list(file.keys())
    refuse_names([name for name in names if name not in (*FIELDS, "subject_row")], "tensor")
    if "x" not in names:
        raise ValidationFailed("there is no tensor 'x'", pointer="/x")
    slices = {name: file.get_slice(name) for name in names}
    for name, part in slices.items():
        if part.get_dtype() not in DTYPES:
            raise ValidationFailed(
                f"{name} has type {part.get_dtype()}, which is not taken", pointer=f"/{name}"
            )
    shape = tuple(slices["x"].get_shape())
    if len(shape) < 2:
        raise DimensionMismatch("x has rows first, then one to three dimensions", pointer="/x")
    check_count(shape[0], source.limits)
    persons, person_rows = _persons(file, slices, shape[0], source)
    for name, part in slices.items():
        same_length(name, (part.get_shape() or [0])[0], shape[0])
    classes = _classes(file)
    dtype = np.dtype(DTYPES[slices["x"].get_dtype()])
    size = block_rows(shape[1:], stored_size(dtype, len(shape)), source.limits)

    def column(name: str, first: int, last: int) -> Sequence[Any] | None:
        return values(slices[name][first:last], name) if name in slices else None

    for first in range(0, shape[0], size):
        last = min(first + size, shape[0])
        subject: Any = None
        if persons is not None:
            subject = subjects_of(persons, person_rows, first, last - first)
        yield Chunk(
            positions=np.arange(first, last),
            x=numbers(slices["x"][first:last], "x"),
            label=_named(column("label", first, last), classes, first),
            sample_id=column("sample_id", first, last),
            subject=subject,
            split=column("split", first, last),
            target=targets(slices["target"][first:last]) if "target" in slices else None,
            declared=classes or (),
        )


def _persons(
    file: Any, slices: dict[str, Any], rows: int, source: Source
) -> tuple[Sequence[Any] | None, Any]:
    """Subjects, sorted by row where `subject_row` names the row of each; takes both out of `slices`."""
    subject, index = slices.pop("subject", None), slices.pop("subject_row", None)
    if subject is None:
        if index is not None:
            raise ValidationFailed("subject_row without subject", pointer="/subject_row")
        return None, None
    persons = values(file.get_tensor("subject"), "subject")
    if index is None:
        same_length("subject", len(persons), rows)
        return persons, None
    where = np.asarray(values(file.get_tensor("subject_row"), "subject_row"), dtype=np.int64)
    same_length("subject_row", len(where), len(persons))
    if len(where) and (where.min() < 0 or where.max() >= rows):
        raise ValidationFailed(f"subject_row names rows outside 0 to {rows - 1}", pointer="/subject_row")
    order = np.argsort(where, kind="stable")
    return [persons[i] for i in order], where[order]


def _classes(file: Any) -> list[str] | None:
    text = (file.metadata() or {}).get("classes")
    if text is None:
        return None
    try:
        return NAMES.validate_json(text)
    except ValidationError:
        raise ValidationFailed(
            "metadata 'classes' has to be a JSON list of names", pointer="/classes"
        ) from None


def _named(labels: Sequence[Any] | None, classes: list[str] | None, first: int) -> Sequence[Any] | None:
    if labels is None or classes is None:
        return labels
    for row, label in enumerate(labels):
        if not 0 <= label < len(classes):
            raise ValidationFailed(
                f"row {first + row} has a label that metadata 'classes' does not name",
                pointer=f"/label/{first + row}",
            )
    return [classes[label] for label in labels]
