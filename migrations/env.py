"""Runs migrations on the database that the caller opened, or that the settings name."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, text

from app.config import load
from app.db import Database, connect
from app.tables import Base
from app.tables.base import UtcDateTime

LOCK = 0x70616C6D  # the advisory lock that lets one process migrate


def render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """A migration names no code of ours, which will have moved on."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def migrate(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        _check_references(connection, "OFF")  # a batch rebuilds a table under the references to it
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=sqlite,
        render_item=render_item,
        transactional_ddl=True,
        compare_type=True,
    )
    with context.begin_transaction():
        if not sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
    if sqlite:
        _check_references(connection, "ON")


def _check_references(connection: Connection, switch: str) -> None:
    """Outside of any transaction: in one, SQLite takes no notice of it."""
    cursor = connection.connection.cursor()
    cursor.execute(f"PRAGMA foreign_keys={switch}")
    cursor.close()


def run() -> None:
    given: Database | None = context.config.attributes.get("database")
    db = given or connect(load().settings.database_url)
    with db.engine.connect() as connection:
        migrate(connection)
    if given is None:
        db.close()


run()
