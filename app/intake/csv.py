"""CSV: a header; `label`, `sample_id`, `subject`, `split`, `target` by name, every other column a feature."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic_core import from_json

from app.errors import ValidationFailed
from app.intake.lists import Collected, row_of
from app.intake.rows import FIELDS, LATER, Chunk, Source, refuse_names

NAMED = tuple(name for name in FIELDS if name != "x")


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a CSV file in UTF-8. An empty cell is a missing value, which is not finite."""
    source.file.seek(0)
    text = io.TextIOWrapper(source.file, encoding="utf-8-sig", newline="")
    lines = csv.reader(text, strict=True)
    try:
        yield from _read(lines, source)
    except csv.Error:
        raise ValidationFailed(f"line {lines.line_num} is not CSV", pointer=f"/{lines.line_num}") from None
    except UnicodeDecodeError:
        raise ValidationFailed("text has to be UTF-8") from None
    finally:
        text.detach()


def _read(lines: Any, source: Source) -> Iterator[Chunk]:
    names = [name.strip() for name in next(lines, [])]
    if len(set(names)) != len(names):
        raise ValidationFailed("two columns have one name", pointer="/0")
    refuse_names([name for name in names if name in LATER], "column")
    features = [index for index, name in enumerate(names) if name not in NAMED]
    if not features:
        raise ValidationFailed("there is no feature column", pointer="/x")
    places = {name: names.index(name) for name in NAMED if name in names}
    collected = Collected(source, tuple(places))
    position = 0
    for cells in lines:
        if not cells:
            continue  # an empty line
        if len(cells) == len(names):
            extras = {name: cells[at] or None for name, at in places.items()}
            collected.add(position, _features(cells, names, features, position), extras)
        else:
            collected.skip(position)
        position += 1
        if collected.full:
            yield collected.take()
    if len(collected):
        yield collected.take()


def _features(cells: Sequence[str], names: Sequence[str], features: Sequence[int], row: int) -> Any:
    if len(features) == 1 and cells[features[0]].startswith("["):
        try:
            return row_of(from_json(cells[features[0]]), row)
        except ValueError:
            raise ValidationFailed(f"row {row}: x is not a list of numbers", pointer=f"/x/{row}") from None
    found = np.empty(len(features), dtype=np.float64)
    for at, index in enumerate(features):
        try:
            found[at] = float(cells[index]) if cells[index] else np.nan
        except ValueError:
            name = names[index]
            raise ValidationFailed(
                f"row {row}, column {name!r}: not a number", pointer=f"/{name}/{row}"
            ) from None
    return found
