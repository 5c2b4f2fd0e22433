"""Rows in a large JSON body, read some at a time: parsing megabytes in one go stops every other thread."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
OPEN = re.compile(rb"\s*:\s*\[")
TOKENS_PER_STEP = 8_000  # some milliseconds of scanning
BYTES_PER_STEP = 1 << 17  # some milliseconds of parsing

Spans = list[tuple[int, int]]


def split_rows(
    body: bytes, field: bytes = b'"inputs"'
) -> Generator[None, None, tuple[bytes, NDArray[Any]] | None]:
    """The body with an empty list in place of a field's rows, and the rows as one array of numbers.

    Yields between steps. Returns None for whatever is not plain (no such field, text inside, ragged rows, no
    JSON): then the whole body has to be parsed by who knows how to complain.
    """
    found = yield from _spans(body, field)
    if found is None:
        return None
    start, end, spans = found
    rest = body[:start] + body[end:]
    if rest.count(field) != 1:
        return None
    parts: list[NDArray[Any]] = []
    for first, last in spans:
        try:
            part = np.asarray(from_json(b"[" + body[first:last] + b"]"))
        except ValueError:
            return None
        if part.dtype.kind not in "iuf" or part.ndim < 2 or part.shape[1:] != (parts or [part])[0].shape[1:]:
            return None
        parts.append(part)
        yield
    return rest, np.concatenate(parts)


def _spans(body: bytes, field: bytes) -> Generator[None, None, tuple[int, int, Spans] | None]:
    """Where the rows begin and end, and pieces of whole rows between them, without the commas between."""
    depth, start, spans = 0, -1, []
    first = last = -1  # of the present piece
    for count, token in enumerate(TOKEN.finditer(body)):
        if count % TOKENS_PER_STEP == TOKENS_PER_STEP - 1:
            yield
        kind = token[0]
        if kind in b"[{":
            if start >= 0 and kind == b"{":
                return None
            depth += 1
            if depth == 3 and start >= 0:
                between = body[(start if last < 0 else last) : token.start()].strip()
                if between != (b"" if last < 0 else b","):
                    return None
                if first < 0:
                    first = token.start()
        elif kind in b"]}":
            depth -= 1
            if start >= 0 and depth == 2:
                last = token.end()
                if last - first >= BYTES_PER_STEP:
                    spans.append((first, last))
                    first = -1
            elif start >= 0 and depth == 1:
                if last < 0 or body[last : token.start()].strip():
                    return None
                return start, token.start(), [*spans, (first, last)] if first >= 0 else spans
        elif start >= 0:
            return None
        elif depth == 1 and kind == field and (opened := OPEN.match(body, token.end())):
            start = opened.end()
    return None
