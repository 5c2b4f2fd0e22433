"""Many values, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 500  # values in one `IN`


def parts(values: Iterable[T], size: int = AT_ONCE) -> Iterator[list[T]]:
    """Lists of at most `size` values."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part
