"""Files and keys that no row names: what a writer left that was killed between bytes and commit."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, func, select, union_all
from sqlalchemy.orm import Session

from app.db import clock
from app.files import Files, LocalFiles
from app.service import Service
from app.services.callers.idempotency import under_way
from app.services.jobs import ACTIVE
from app.tables import (
    Centroid,
    Checkpoint,
    Dataset,
    ForgetRequest,
    IdempotencyRecord,
    Job,
    RowIndex,
    Shard,
    SigningKey,
    Tenant,
    Upload,
    Version,
)

NAME_FILES = (
    Shard.file_id,
    RowIndex.file_id,
    Version.file_id,
    Version.statistics_file_id,
    Upload.file_id,
    Checkpoint.file_id,
)
NAME_KEYS = (
    Shard.key_id,
    RowIndex.key_id,
    Version.key_id,
    Upload.key_id,
    Checkpoint.key_id,
    Centroid.key_id,
    Dataset.id,
    Tenant.id,
    SigningKey.id,
    ForgetRequest.callback_key_id,
)


def remove_orphans(service: Service, seconds: float | None = None) -> int:
    """Delete files and keys that no row names, older than that (default: `orphan_seconds`) and than all that
    is still being written; returns how many."""
    with service.db.read() as session:
        seconds = age(session, service.settings.jobs.orphan_seconds if seconds is None else seconds)
    removed = 0
    # what is old is listed before the rows are read: whatever committed between is named by then
    for files, columns in ((service.vault.files, NAME_FILES), (service.vault.keys, NAME_KEYS)):
        if isinstance(files, LocalFiles):
            removed += files.remove_temporary(seconds)
        old = set(files.older_than(seconds))
        if old:
            removed += _delete(files, old - _named(service, columns))
    return removed


def age(session: Session, seconds: float) -> float:
    """How old an orphan is at least, in seconds: older than the oldest upload or job that is under way."""
    now = clock(session)
    begun = [
        session.scalar(select(func.min(IdempotencyRecord.created_at)).where(*under_way(now))),
        session.scalar(select(func.min(Job.started_at)).where(Job.state.in_(ACTIVE))),
    ]
    oldest: datetime = min((time for time in begun if time is not None), default=now)
    return max(seconds, (now - oldest).total_seconds() + 60)


def _named(service: Service, columns: tuple[object, ...]) -> set[UUID]:
    queries: list[Select[tuple[UUID]]] = [select(column) for column in columns]  # type: ignore[call-overload]
    with service.db.read() as session:
        return set(session.scalars(union_all(*queries)))


def _delete(files: Files, ids: set[UUID]) -> int:
    for id in ids:
        files.delete(id)
    return len(ids)
