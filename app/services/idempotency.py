"""The same call twice has one effect and one answer: records written in the transaction of the effect."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
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
    fingerprint: str | None = None  # None for uploads: theirs stands in the dataset's key object

    def begin(self, session: Session) -> None:
        """Take the key; raises `Replay`, `IdempotencyMismatch` or `IdempotencyInProgress`."""
        self._refuse_used(session)
        try:
            with session.begin_nested():
                session.add(self._record(session))
        except IntegrityError:  # a parallel duplicate committed while this insert waited for it
            self._refuse_used(session)
            raise

    def finish(
        self,
        session: Session,
        *,
        status: int,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        resource_id: UUID | None = None,
    ) -> None:
        """Write the answer that duplicates will get."""
        values = {
            "status": status,
            "body": body,
            "headers": dict(headers or {}),
            "resource_id": resource_id,
        }
        session.execute(update(IdempotencyRecord).where(*self._mine()).values(values))

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

    def _record(self, session: Session) -> IdempotencyRecord:
        return IdempotencyRecord(
            id=ids.new(),
            created_at=clock(session),
            tenant_id=self.tenant_id,
            route=self.route,
            key=self.key,
            fingerprint=self.fingerprint,
            headers={},
        )

    def _mine(self) -> tuple[Any, ...]:
        return (
            IdempotencyRecord.tenant_id == self.tenant_id,
            IdempotencyRecord.route == self.route,
            IdempotencyRecord.key == self.key,
        )


@contextmanager
def reserved(service: Service, once: Once) -> Iterator[Stored | None]:
    """Hold a key while an upload streams, so that a parallel duplicate is refused and not stored twice.

    Yields the earlier answer where there is one. Otherwise the block ends with `once.finish` in the
    transaction that stores the dataset; a block that ends without it gives the key back. A thread renews the
    record meanwhile, so that the key of a killed process is free again after a minute.
    """
    earlier = _take(service, once)
    if earlier is not None:
        yield earlier
        return
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(service, once, done), name="idempotency", daemon=True)
    renewer.start()
    try:
        yield None
    finally:
        done.set()
        renewer.join()
        with service.db.begin() as session:
            unfinished = IdempotencyRecord.status.is_(None)
            session.execute(delete(IdempotencyRecord).where(*once._mine(), unfinished))


def _take(service: Service, once: Once) -> Stored | None:
    try:
        with service.db.begin() as session:
            found = once.find(session)
            if found is None:
                session.add(once._record(session))
                return None
            if found.status is not None:
                return _stored(found)
            if found.created_at > clock(session) - timedelta(seconds=DEAD_SECONDS):
                raise IdempotencyInProgress("the first upload with this key is still running")
            found.created_at = clock(session)
            return None
    except IntegrityError:
        raise IdempotencyInProgress("the first upload with this key is still running") from None


def _renew(service: Service, once: Once, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            with service.db.begin() as session:
                unfinished = IdempotencyRecord.status.is_(None)
                session.execute(
                    update(IdempotencyRecord)
                    .where(*once._mine(), unfinished)
                    .values(created_at=clock(session))
                )
        except SQLAlchemyError:
            continue  # the next round tries again


def _stored(record: IdempotencyRecord) -> Stored:
    if record.status is None:
        raise IdempotencyInProgress("the first call with this key is still running")
    return Stored(record.fingerprint, record.status, record.headers, record.body, record.resource_id)
