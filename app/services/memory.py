"""What a process keeps in memory: values that are valid for one change counter of the database."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import TOUCHED, Database, change_counter

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST = 20_000  # values kept at once
ALSO_SECONDS = 60.0
BLIND_SECONDS = 30.0  # a database that is away for longer takes the memory with it


class Memory:
    """Values loaded from the database, dropped together when its change counter moves.

    One thread reads the counter every `every` seconds. A commit of this process that touched it drops the
    values at once, so that whoever writes here reads here what he wrote.
    """

    def __init__(self, db: Database, every: float) -> None:
        self._db = db
        self._every = every
        self._lock = threading.Lock()
        self._values: dict[Hashable, Any] = {}
        self._generation = 0
        self._counter = -1
        self._seen_at = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, also: Callable[[], None] | None = None) -> None:
        """`also` is called by the same thread about once a minute, and when it stops."""
        event.listen(self._db.writers, "after_commit", self._after_commit)
        self._thread = threading.Thread(target=self._poll, args=(also,), name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            event.remove(self._db.writers, "after_commit", self._after_commit)

    def peek(self, key: Hashable) -> Any:
        """The value if it is here, else None; never waits."""
        return self._values.get(key)

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """The value, loaded where it is not here. What was loaded across a change is not kept."""
        found = self._values.get(key)
        if found is not None:
            return cast(T, found)
        generation = self._generation
        value = load()
        with self._lock:
            if generation == self._generation:
                if len(self._values) >= MOST:
                    self._values = {}
                self._values[key] = value
        return value

    def forget(self, key: Hashable) -> None:
        """Drop one value: its time is over although nothing changed."""
        with self._lock:
            self._values.pop(key, None)

    def see(self, counter: int) -> None:
        """Learn the counter that a transaction read; a newer one drops the values."""
        with self._lock:
            self._seen_at = time.monotonic()
            if counter > self._counter:
                self._counter = counter
                self._drop()

    def refresh(self) -> None:
        """Read the counter now."""
        with self._db.read() as session:
            counter = change_counter(session)
        self.see(counter)

    def _after_commit(self, session: Session) -> None:
        if session.info.get(TOUCHED):
            with self._lock:
                self._drop()

    def _drop(self) -> None:
        self._generation += 1
        self._values = {}

    def _poll(self, also: Callable[[], None] | None) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._every):
            try:
                self.refresh()
                if also is not None and time.monotonic() - last > ALSO_SECONDS:
                    last = time.monotonic()
                    also()
            except SQLAlchemyError:
                self._lose_sight()
            except Exception:  # the edge: without this thread memory would be old for ever
                log.exception("memory not refreshed")
                self._lose_sight()
        if also is not None:
            with contextlib.suppress(SQLAlchemyError):
                also()

    def _lose_sight(self) -> None:
        if time.monotonic() - self._seen_at > BLIND_SECONDS:
            log.warning("database away: memory dropped")
            with self._lock:
                self._seen_at = time.monotonic()
                self._drop()
