"""The same call twice has one effect and one answer: records written in the transaction of the effect."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, insert_of
from app.errors import IdempotencyInProgress, IdempotencyMismatch
from app.service import Service
from app.tables import IdempotencyRecord

RENEW_SECONDS = 10.0
DEAD_SECONDS = 60.0  # an upload whose record was not renewed for so long has lost its process


@dataclass(frozen=True)
class Stored:
    """The answer that a key was given."""

    fingerprint: str | None
    status: int
    headers: Mapping[str, str]
    body: Any
    resource_id: UUID | None


class Replay(Exception):
    """The call was answered before; whoever renders it says so again. The transaction is rolled back."""

    def __init__(self, stored: Stored) -> None:
        super().__init__("answered before")
        self.stored = stored


@dataclass(frozen=True)
class Once:
    """One idempotency key of one tenant on one route, and what was asked with it.

    Inside the transaction of the effect: `begin` first, `finish` last.
    """

    tenant_id: UUID
    route: str  # method and path
    key: str
    fingerprint: str | None = None  # of an upload: of its query and type; its bytes' is in a key object
    record_id: UUID | None = None  # of the record that holds the key for an upload under way

    def begin(self, session: Session) -> None:
        """Take the key; raises `Replay`, `IdempotencyMismatch` or `IdempotencyInProgress`."""
        values = insert_of(session)(IdempotencyRecord).values(self._values(session))
        mine = values.on_conflict_do_nothing(index_elements=["tenant_id", "route", "key"])
        if session.connection().scalar(mine.returning(IdempotencyRecord.id)) is None:
            self._refuse_used(session)  # a duplicate that was under way has committed by now
            raise IdempotencyInProgress("the first call with this key is just ending")

    def finish(
        self,
        session: Session,
        *,
        status: int,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        resource_id: UUID | None = None,
    ) -> None:
        """Write the answer that duplicates will get; raises where the key is no longer held."""
        values = {
            "status": status,
            "body": body,
            "headers": dict(headers or {}),
            "resource_id": resource_id,
        }
        answered = update(IdempotencyRecord).where(*_unfinished(self)).values(values)
        if not session.connection().execute(answered.returning(IdempotencyRecord.id)).all():
            raise IdempotencyInProgress("another call took this key over while this one was silent")

    def find(self, session: Session) -> IdempotencyRecord | None:
        """The record of this key, as committed now."""
        query = select(IdempotencyRecord).where(*self._mine())
        return session.scalar(query.execution_options(populate_existing=True))

    def _refuse_used(self, session: Session) -> None:
        found = self.find(session)
        if found is None:
            return
        if self.fingerprint != found.fingerprint:
            raise IdempotencyMismatch("this Idempotency-Key came with another request before")
        raise Replay(_stored(found))

    def _values(self, session: Session, renewed_at: datetime | None = None) -> dict[str, Any]:
        return {
            "id": self.record_id or ids.new(),
            "created_at": clock(session),
            "renewed_at": renewed_at,
            "tenant_id": self.tenant_id,
            "route": self.route,
            "key": self.key,
            "fingerprint": self.fingerprint,
            "headers": {},
        }

    def _mine(self) -> tuple[Any, ...]:
        return (
            IdempotencyRecord.tenant_id == self.tenant_id,
            IdempotencyRecord.route == self.route,
            IdempotencyRecord.key == self.key,
            *((IdempotencyRecord.id == self.record_id,) if self.record_id else ()),
        )


@dataclass(frozen=True)
class Reserved:
    """An upload's key: held by `once` while it streams, or answered before."""

    once: Once
    earlier: Stored | None = None


@contextmanager
def reserved(service: Service, once: Once) -> Iterator[Reserved]:
    """Hold a key while an upload streams, so that a parallel duplicate is refused and not stored twice.

    Yields the earlier answer where there is one. Otherwise the block ends with `finish` of the yielded `once`
    in the transaction that stores the dataset; a block that ends without it gives the key back. A thread
    renews the record meanwhile, so that the key of a killed process is free again after a minute; whoever
    takes it over holds it under another record, and a process that was only paused finds it gone.
    """
    held = _take(service, once)
    if held.earlier is not None:
        yield held
        return
    done = threading.Event()
    arguments = (service, held.once, done)
    renewer = threading.Thread(target=_renew, args=arguments, name="idempotency", daemon=True)
    renewer.start()
    try:
        yield held
    finally:
        done.set()
        renewer.join()
        with service.db.begin() as session:
            session.execute(delete(IdempotencyRecord).where(*_unfinished(held.once)))


def under_way(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """What an upload's record says while the upload goes on; `created_at` is when it began."""
    return (
        IdempotencyRecord.status.is_(None),
        IdempotencyRecord.renewed_at > now - timedelta(seconds=DEAD_SECONDS),
    )


def _take(service: Service, once: Once) -> Reserved:
    mine = replace(once, record_id=ids.new())
    try:
        with service.db.begin() as session:
            now = clock(session)
            query = select(IdempotencyRecord).where(*once._mine()).with_for_update()
            found = session.scalar(query)
            if found is None:
                session.add(IdempotencyRecord(**mine._values(session, renewed_at=now)))
                return Reserved(mine)
            if found.status is not None:
                return Reserved(once, _stored(found))
            if found.renewed_at is None or found.renewed_at > now - timedelta(seconds=DEAD_SECONDS):
                raise IdempotencyInProgress("the first upload with this key is still running")
            session.delete(found)
            session.flush()
            session.add(IdempotencyRecord(**mine._values(session, renewed_at=now)))
            return Reserved(mine)
    except IntegrityError:
        raise IdempotencyInProgress("the first upload with this key is still running") from None


def _renew(service: Service, once: Once, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            with service.db.begin() as session:
                renewed = update(IdempotencyRecord).where(*_unfinished(once))
                session.execute(renewed.values(renewed_at=clock(session)))
        except SQLAlchemyError:
            continue  # the next round tries again


def _unfinished(once: Once) -> tuple[Any, ...]:
    return (*once._mine(), IdempotencyRecord.status.is_(None))


def _stored(record: IdempotencyRecord) -> Stored:
    if record.status is None:
        raise IdempotencyInProgress("the first call with this key is still running")
    return Stored(record.fingerprint, record.status, record.headers, record.body, record.resource_id)
