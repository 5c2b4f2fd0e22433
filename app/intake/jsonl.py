"""JSON lines: one object a row, with `x` and what else the row carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import from_json

from app import json_keys
from app.errors import BodyTooLarge, ValidationFailed
from app.intake.lists import Collected, row_of
from app.intake.rows import FIELDS, Chunk, Source, refuse_names

LINE_BYTES = 32 << 20


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a JSON lines file. The fields of the first row are the fields of all."""
    return chunks(source, _lines(source))


def chunks(source: Source, rows: Iterable[Any]) -> Iterator[Chunk]:
    """Rows as objects, in order, collected into chunks."""
    collected: Collected | None = None
    for position, sent in enumerate(rows):
        if not isinstance(sent, dict):
            raise ValidationFailed(
                f'row {position} is not an object like {{"x": [1.0, 2.0], "label": "wren"}}',
                pointer=f"/{position}",
            )
        refuse_names([name for name in sent if name not in FIELDS], "field")
        row = dict(sent)
        x = row_of(row.pop("x", None), position)
        if collected is None:
            collected = Collected(source, tuple(row))
        if unlike := set(row) - set(collected.names):
            name = min(unlike)
            raise ValidationFailed(
                f"row {position} has {name}, the first row has not", pointer=f"/{name}/{position}"
            )
        collected.add(position, x, row)
        if collected.full:
            yield collected.take()
    if collected is not None and len(collected):
        yield collected.take()


def _lines(source: Source) -> Iterator[Any]:
    """What each line that is not empty holds."""
    source.file.seek(0)
    position = 0
    while line := source.file.readline(LINE_BYTES):
        if len(line) >= LINE_BYTES:
            raise BodyTooLarge(f"line {position} is longer than {LINE_BYTES} bytes")
        if not line.strip():
            continue
        try:
            row = from_json(line)
        except ValueError:
            raise ValidationFailed(f"line {position} is not JSON", pointer=f"/{position}") from None
        strings = json_keys.strings_of(row) if isinstance(row, dict) else None
        json_keys.check(line, f"line {position}", strings)
        yield row
        position += 1
