"""Who waits for jobs in this process: one poller for all of them, however many clients follow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from sqlalchemy import and_, or_, select
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.services.jobs import DONE
from app.tables import Job, JobEvent

log = logging.getLogger(__name__)

AT_ONCE = 500  # lines of one reading


@dataclass(frozen=True)
class Told:
    """A line of a job's story."""

    sequence: int
    event: str
    created_at: datetime
    data: dict[str, Any]


@dataclass(eq=False)
class _Reader:
    """One client: which job, the last line it has, and what came since. `None` ends it."""

    job_id: UUID
    after: int | None  # None: it waits for the end and wants no lines
    news: asyncio.Queue[Told | None] = field(default_factory=asyncio.Queue)


class Feed:
    """Reads the jobs that somebody here waits for, every `every` seconds and only then."""

    def __init__(self, db: Database, every: float = 0.1) -> None:
        self._db = db
        self._every = every
        self._readers: set[_Reader] = set()
        self._somebody = asyncio.Event()
        self._closed = False
        self._thread = CapacityLimiter(1)  # one of its own: the others may all be busy

    async def run(self) -> None:
        """The poller; runs until it is cancelled."""
        while True:
            await self._somebody.wait()
            readers = list(self._readers)
            try:
                done, told = await to_thread.run_sync(self._read, readers, limiter=self._thread)
                _hand_out(readers, done, told)
            except SQLAlchemyError as error:
                log.warning("jobs not read", extra={"error": type(error).__name__})
            except Exception:  # the edge: one poller serves everybody
                log.exception("jobs not read")
            await asyncio.sleep(self._every)

    def close(self) -> None:
        """End every stream, so that a server that stops need not wait for them."""
        self._closed = True
        for reader in self._readers:
            reader.news.put_nowait(None)

    async def wait(self, job_id: UUID, seconds: float) -> None:
        """Return when the job is done, or after `seconds`."""
        with self._reading(job_id, None) as reader:
            try:
                await asyncio.wait_for(reader.news.get(), seconds)
            except TimeoutError:
                return

    async def follow(self, job_id: UUID, after: int, ping: float) -> AsyncIterator[Told | None]:
        """The lines behind `after` as they come, until the job is done; None every `ping` quiet seconds."""
        with self._reading(job_id, after) as reader:
            while True:
                try:
                    told = await asyncio.wait_for(reader.news.get(), ping)
                except TimeoutError:
                    yield None
                    continue
                if told is None:
                    return
                yield told
                if told.event == "done":
                    return

    @contextmanager
    def _reading(self, job_id: UUID, after: int | None) -> Iterator[_Reader]:
        reader = _Reader(job_id, after)
        if self._closed:
            reader.news.put_nowait(None)
        self._readers.add(reader)
        self._somebody.set()
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self._somebody.clear()

    def _read(self, readers: Iterable[_Reader]) -> tuple[set[UUID], dict[UUID, list[Told]]]:
        """Which of the jobs are done, read before their lines, and the lines that somebody lacks."""
        since: dict[UUID, int] = {}
        for reader in readers:
            if reader.after is not None:
                since[reader.job_id] = min(reader.after, since.get(reader.job_id, reader.after))
        wanted = {reader.job_id for reader in readers}
        with self._db.read() as session:
            done = session.scalars(select(Job.id).where(Job.id.in_(wanted), Job.state.in_(DONE))).all()
            if not since:
                return set(done), {}
            behind = [and_(JobEvent.job_id == id, JobEvent.sequence > after) for id, after in since.items()]
            lines = session.scalars(
                select(JobEvent).where(or_(*behind)).order_by(JobEvent.sequence).limit(AT_ONCE)
            )
            told: dict[UUID, list[Told]] = {}
            for line in lines:
                one = Told(line.sequence, line.event, line.created_at, line.data)
                told.setdefault(line.job_id, []).append(one)
        return set(done), told


def _hand_out(readers: Iterable[_Reader], done: set[UUID], told: dict[UUID, list[Told]]) -> None:
    whole = sum(len(lines) for lines in told.values()) < AT_ONCE
    for reader in readers:
        lines = told.get(reader.job_id, [])
        if reader.after is None:
            if reader.job_id in done:
                reader.news.put_nowait(None)
            continue
        for one in lines:
            if one.sequence > reader.after:
                reader.after = one.sequence
                reader.news.put_nowait(one)
        if reader.job_id in done and not lines and whole:
            reader.news.put_nowait(None)  # nothing is behind what this reader has
