"""Rows in a large JSON body, read some at a time: parsing megabytes in one go stops every other thread."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from app.errors import BodyTooLarge

FIELD = b'"inputs"'
OPENED = re.compile(FIELD + rb"\s*:\s*\[")
COMMA = re.compile(rb"\s*,\s*")
STEP = 1 << 16  # bytes that are parsed at once: a millisecond or two


def split_rows(body: bytes, most: int) -> Generator[None, None, tuple[bytes, NDArray[Any]] | None]:
    """The body with an empty list for `inputs`, and the rows as one array of numbers; yields between steps.

    Stops with `BodyTooLarge` at the first step that has more than `most` rows.

    Returns None for whatever is not plain (no such field or two, text inside, ragged rows, no JSON): then the
    whole body has to be parsed by who knows how to complain. The rest is not looked at: the body was JSON if
    the rest is, for what was taken out of it is a list.
    """
    opened = OPENED.search(body)
    if opened is None or body.count(FIELD) != 1:
        return None
    start = opened.end()
    quote = body.find(b'"', start)  # of the next field; there is no text in rows of numbers
    end = body.rfind(b"]", start, len(body) if quote < 0 else quote)
    parts: list[NDArray[Any]] = []
    at, count = start, 0
    while at < end:
        cut = _end_of_a_row(body, at, end)
        part = None if cut is None else _numbers(body[at:cut])
        if cut is None or part is None or part.shape[1:] != (parts or [part])[0].shape[1:]:
            return None
        parts.append(part)
        count += len(part)
        if count > most:
            raise BodyTooLarge(f"a prediction has 1 to {most} rows; this one has more", pointer="/inputs")
        yield
        comma = COMMA.match(body, cut, end)
        at = comma.end() if comma else end
        if at == end and body[cut:end].strip():  # a comma that nothing follows, or no comma
            return None
    return (body[:start] + body[end:], np.concatenate(parts)) if parts else None


def _end_of_a_row(body: bytes, at: int, end: int) -> int | None:
    """Where the first row ends that ends after a step; at the last row where none does."""
    place = min(at + STEP, end)
    depth = body.count(b"[", at, place) - body.count(b"]", at, place)
    while depth > 0:
        closed = body.find(b"]", place, end)
        if closed < 0:
            return None
        depth += body.count(b"[", place, closed) - 1
        place = closed + 1
    last = body.rfind(b"]", at, place)
    return last + 1 if depth == 0 and last >= 0 else None


def _numbers(rows: bytes) -> NDArray[Any] | None:
    try:
        found = np.asarray(from_json(b"[" + rows + b"]"))
    except ValueError:  # no JSON, or ragged
        return None
    return found if found.dtype.kind in "iuf" and found.ndim > 1 else None
