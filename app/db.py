"""The database: engine, transactions, its clock and its change counter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

# A server or a network that has gone silent is an error within seconds, never a call that hangs.
NOTICES_SILENCE = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
TOUCHED = "touched"  # in `Session.info`: this transaction moved the change counter


class Database:
    """Transactions on one engine.

    `begin` writes: it commits at the end of the block, and on SQLite takes the write lock at its start, so
    that a read followed by a write never meets a changed snapshot. `read` is one snapshot and writes nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.writers = sessionmaker(engine, expire_on_commit=False)
        event.listen(self.writers, "before_commit", _move_counter)
        self._read = sessionmaker(_reading(engine), expire_on_commit=False)

    def begin(self) -> AbstractContextManager[Session]:
        return self.writers.begin()

    def read(self) -> AbstractContextManager[Session]:
        return self._read.begin()

    def close(self) -> None:
        self.engine.dispose()


def connect(url: str) -> Database:
    """Open a database by its SQLAlchemy URL (SQLite or PostgreSQL by psycopg)."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 5.0}, pool_size=20, hide_parameters=True)
        _prepare_sqlite(engine)
    else:
        engine = create_engine(
            url, connect_args=NOTICES_SILENCE, pool_size=20, pool_pre_ping=True, hide_parameters=True
        )
    return Database(engine)


def _reading(engine: Engine) -> Engine:
    """The engine for transactions that are one snapshot and write nothing."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(read_only=True)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is late and never IMMEDIATE
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # what was answered with 202 survives a power cut
            "busy_timeout=5000",
            "foreign_keys=ON",
            "secure_delete=ON",  # a deleted row leaves no bytes in free pages
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def clock(session: Session) -> datetime:
    """The time by the database: every lease and deadline is compared with this one."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        value = connection.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')").scalar()
        return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)
    value = connection.exec_driver_sql("SELECT clock_timestamp()").scalar()
    assert isinstance(value, datetime)
    return value.astimezone(UTC)


def insert_of(session: Session) -> Callable[[type[Any]], Any]:
    """`insert` in the dialect of the database, which knows `on_conflict_do_nothing`."""
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert


def touch(session: Session) -> None:
    """Tell every process that what it keeps in memory may be old (versions, aliases, keys, models)."""
    session.info[TOUCHED] = True


def _move_counter(session: Session) -> None:
    """The counter is one row for all, so its lock is taken last."""
    if session.info.get(TOUCHED) and not session.in_nested_transaction():
        session.flush()
        session.connection().exec_driver_sql("UPDATE changes SET counter = counter + 1")


def change_counter(session: Session) -> int:
    """The number that moves with every `touch`."""
    return int(session.scalar(text("SELECT counter FROM changes")) or 0)
