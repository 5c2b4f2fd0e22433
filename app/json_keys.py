"""Keys that are twice in one object of a JSON text: parsers keep one of the values and say nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidRequest

SHOWN = 80  # characters of a key that an error quotes


def check(raw: bytes, what: str = "the body", strings: int | None = None) -> None:
    """Raise `InvalidRequest` for a key that is twice in an object; what is no JSON passes.

    `strings`, where it is known, is how many strings (keys included) a parser gave of `raw`. A key that it
    dropped would leave two quotes more than these need, so with none over nothing is parsed again.
    """
    if strings is not None and raw.count(b'"') == 2 * strings:
        return

    def each_once(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidRequest(f"{what} has the key {key[:SHOWN]!r} twice in one object")
            seen.add(key)

    try:
        json.loads(raw, object_pairs_hook=each_once, parse_int=float)  # an int has no more than 4,300 digits
    except (ValueError, RecursionError):
        return  # whoever reads it says so


def strings_of(row: Mapping[str, Any]) -> int:
    """How many strings a row, or rows as columns, hold: keys, and values down to a list in a list; `x` holds
    none."""
    return len(row) + sum(_strings(value) for name, value in row.items() if name != "x")


def _strings(value: Any) -> int:
    if isinstance(value, str):
        return 1
    return sum(map(_strings, value)) if isinstance(value, list) else 0
