"""JSON, for small data: an array of rows like JSON lines, or columns, `{"x": [[…], …], "label": […]}`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from app import json_keys
from app.errors import BodyTooLarge, InvalidRequest, ValidationFailed
from app.intake.arrays import same_length
from app.intake.jsonl import chunks
from app.intake.lists import Collected, row_of
from app.intake.rows import FIELDS, Chunk, Source, refuse_names

ROWS = '[{"x": [1.0, 2.0], "label": "wren"}]'
COLUMNS = '{"x": [[1.0, 2.0]], "label": ["wren"]}'


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a JSON document. It is parsed at once, and nothing else runs for that time, so it has a limit
    of its own."""
    most = min(source.limits.json_dataset_bytes, source.limits.json_bytes)
    if source.bytes > most:
        raise BodyTooLarge(
            f"rows as JSON have at most {most} bytes; send them as application/x-ndjson, one a line"
        )
    source.file.seek(0)
    raw = source.file.read()
    try:
        tree = from_json(raw)
    except ValueError:
        raise InvalidRequest("the body is not JSON") from None
    objects = tree if isinstance(tree, list) else [tree]
    json_keys.check(raw, strings=sum(json_keys.strings_of(one) for one in objects if isinstance(one, dict)))
    if isinstance(tree, list):
        return chunks(source, tree)
    return _by_columns(source, _columns(tree))


def _by_columns(source: Source, columns: dict[str, list[Any]]) -> Iterator[Chunk]:
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


def _columns(tree: Any) -> dict[str, list[Any]]:
    if not isinstance(tree, dict):
        raise ValidationFailed(f"the body has to be an array of rows, {ROWS}, or columns, {COLUMNS}")
    refuse_names([name for name in tree if name not in FIELDS], "field")
    if "x" not in tree:
        raise ValidationFailed("there is no field 'x'", pointer="/x")
    for name, column in tree.items():
        if not isinstance(column, list):
            raise ValidationFailed(f"{name} has to be a list with one value a row", pointer=f"/{name}")
    return tree
