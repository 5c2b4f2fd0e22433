"""JSON, for small data: one object of columns, `{"x": [[…], …], "label": […]}`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from app.errors import BodyTooLarge, InvalidRequest, ValidationFailed
from app.intake.arrays import same_length
from app.intake.lists import Collected, row_of
from app.intake.rows import FIELDS, Chunk, Source, refuse_names


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a JSON document, which is read whole and so has a limit of its own."""
    if source.bytes > source.limits.json_bytes:
        raise BodyTooLarge(f"a JSON body has at most {source.limits.json_bytes} bytes; send another format")
    columns = _columns(source)
    x = columns.pop("x")
    for name, column in columns.items():
        same_length(name, len(column), len(x))
    collected = Collected(source, tuple(columns))
    for position, values in enumerate(x):
        extras = {name: column[position] for name, column in columns.items()}
        collected.add(position, row_of(values, position), extras)
        if collected.full:
            yield collected.take()
    if len(collected):
        yield collected.take()


def _columns(source: Source) -> dict[str, list[Any]]:
    source.file.seek(0)
    try:
        tree = from_json(source.file.read())
    except ValueError:
        raise InvalidRequest("the body is not JSON") from None
    if not isinstance(tree, dict):
        raise ValidationFailed("the body has to be an object of columns")
    refuse_names([name for name in tree if name not in FIELDS], "field")
    if "x" not in tree:
        raise ValidationFailed("there is no field 'x'", pointer="/x")
    for name, column in tree.items():
        if not isinstance(column, list):
            raise ValidationFailed(f"{name} has to be a list with one value a row", pointer=f"/{name}")
    return tree
