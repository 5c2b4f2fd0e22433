"""One page of a list: where it starts, how long it is, whether more follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

At = TypeVar("At")
Row = TypeVar("Row")

Place = tuple[datetime, UUID]  # the keyset of nearly every list: when it was made, then its id


@dataclass(frozen=True)
class Page(Generic[At]):
    """What a client asks for: at most `size` rows behind the keyset `after`."""

    size: int
    after: At | None = None


@dataclass(frozen=True)
class Window(Generic[Row]):
    """The rows of one page, and whether there are more behind them."""

    rows: list[Row]
    more: bool


def window(session: Session, query: Select[Row], page: Page[Place], table: Any) -> Window[Row]:
    """Run a query over a table with `created_at` and `id`, in that order, one page of it."""
    if page.after is not None:
        query = query.where(tuple_(table.created_at, table.id) > tuple_(*page.after))
    query = query.order_by(table.created_at, table.id).limit(page.size + 1)
    rows = session.scalars(query).all()
    return Window(list(rows[: page.size]), more=len(rows) > page.size)
