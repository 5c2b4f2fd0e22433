"""Rows of tables as lines of JSON: the same on SQLite and PostgreSQL, written and read without the ORM.

The first line of a file names columns and kinds; the others are rows. What a table refers to in itself is
written after all its rows, so that their order is of no matter.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.tables import Base
from app.tables.base import Positions, UtcDateTime

LEFT_OUT = ("holders", "changes", "restores")  # who does what just now, and what this database went through
AT_ONCE = 1_000

PLAIN, ID, TIME, BYTES, TREE = "plain", "uuid", "time", "bytes", "json"
TYPES: dict[str, Callable[[], sa.types.TypeEngine[Any]]] = {
    PLAIN: sa.types.NullType,
    ID: sa.Uuid,
    TIME: UtcDateTime,
    BYTES: sa.LargeBinary,
    TREE: lambda: sa.JSON(none_as_null=True),
}


def tables() -> list[sa.Table]:
    """The tables of a backup, each after those that it refers to."""
    return [table for table in Base.metadata.sorted_tables if table.name not in LEFT_OUT]


def dump(session: Session, table: sa.Table, path: Path) -> int:
    """Write the rows of a table; returns how many."""
    kinds = [_kind(column) for column in table.columns]
    wanted = [_plain(column, kind) for column, kind in zip(table.columns, kinds, strict=True)]
    query = sa.select(*wanted).order_by(*table.primary_key.columns).execution_options(yield_per=AT_ONCE)
    count = 0
    with gzip.open(path, "wt", encoding="utf-8") as file:
        header = [[column.name, kind] for column, kind in zip(table.columns, kinds, strict=True)]
        file.write(json.dumps(header) + "\n")
        for row in session.execute(query):
            values = [_encode(kind, value) for kind, value in zip(kinds, row, strict=True)]
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
            count += 1
    return count


def load(session: Session, table: sa.Table, path: Path) -> int:
    """Insert the rows of a file into an empty table; returns how many."""
    inside = {key.parent.name: key.column.name for key in table.foreign_keys if key.column.table is table}
    count = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        header = [(str(name), str(kind)) for name, kind in json.loads(file.readline())]
        into = sa.table(table.name, *(sa.column(name, TYPES[kind]()) for name, kind in header))
        references: list[dict[str, Any]] = []
        rows = _read(file, header)
        while part := list(islice(rows, AT_ONCE)):
            for row in part:
                found = {name: row[name] for name in inside if row[name] is not None}
                if found:
                    references.append({**found, "own": row[next(iter(inside.values()))]})
                    row.update(dict.fromkeys(found))
            session.execute(sa.insert(into), part)
            count += len(part)
    for reference in references:
        own = reference.pop("own")
        key = into.c[next(iter(inside.values()))]
        session.execute(sa.update(into).where(key == own).values(reference))
    _count_on(session, table)
    return count


def _read(file: Any, header: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for line in file:
        values = json.loads(line)
        yield {name: _decode(kind, value) for (name, kind), value in zip(header, values, strict=True)}


def _count_on(session: Session, table: sa.Table) -> None:
    """On PostgreSQL, let a key that counts by itself go on after the rows that were inserted with one."""
    (column, *_) = table.primary_key.columns
    if session.get_bind().dialect.name != "postgresql" or column.autoincrement is not True:
        return
    newest = session.scalar(sa.select(sa.func.max(column)))
    if newest is not None:
        name = sa.func.pg_get_serial_sequence(table.name, column.name)
        session.execute(sa.select(sa.func.setval(name, newest)))


def _kind(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.Uuid):
        return ID
    if isinstance(column.type, UtcDateTime):
        return TIME
    if isinstance(column.type, sa.LargeBinary):
        return BYTES
    return TREE if isinstance(column.type, sa.JSON | Positions) else PLAIN


def _plain(column: sa.Column[Any], kind: str) -> sa.ColumnElement[Any]:
    """JSON as its text: `null` in it and no value at all are not the same."""
    return sa.cast(column, sa.Text) if kind == TREE else column


def _encode(kind: str, value: Any) -> Any:
    if value is None or kind in (PLAIN, TREE):
        return value
    if kind == ID:
        return value.hex
    return value.isoformat() if kind == TIME else base64.b64encode(value).decode()


def _decode(kind: str, value: Any) -> Any:
    if value is None or kind == PLAIN:
        return value
    if kind == ID:
        return UUID(hex=value)
    if kind == TIME:
        return datetime.fromisoformat(value)
    if kind == BYTES:
        return base64.b64decode(value)
    tree = json.loads(value)
    return sa.JSON.NULL if tree is None else tree
