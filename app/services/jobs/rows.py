"""A job's words, and the one place that inserts one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.tables import Job, JobDataset, JobEvent

LOG_LINES = 200  # of one job
LOG_CHARACTERS = 500  # of one line


class State(StrEnum):
    """Where a job is. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (State.RUNNING, State.CANCELLING)
DONE = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Cause(StrEnum):
    """Why an attempt ended without a result; each has its own rule of retrying."""

    INVALID_INPUT = "invalid-input"
    OUT_OF_MEMORY = "out-of-memory"
    WORKER_LOST = "worker-lost"
    TIMEOUT = "timeout"
    DEPENDENCY = "dependency"
    ARTIFACT_CORRUPT = "artifact-corrupt"
    STORAGE_FULL = "storage-full"
    SUPERSEDED = "superseded-by-erasure"
    INTERNAL = "internal"


class Urgency(IntEnum):
    """Smaller is claimed first."""

    ERASURE = 0
    ON_LANE = 10
    OFF_LANE = 20


def new_job(
    session: Session,
    *,
    tenant_id: UUID,
    kind: str,
    queue: str,
    lane: UUID | None,
    urgency: int,
    model_id: UUID | None,
    resource_id: UUID | None,
    request: Mapping[str, Any],
    actor: str,
    request_id: str | None,
    datasets: Iterable[tuple[UUID, str]] = (),
    max_attempts: int = 3,
    retry_of: UUID | None = None,
) -> Job:
    """Insert a queued job; the caller rings after its commit, and the sweep does where that failed."""
    now = clock(session)
    job = Job(
        id=ids.new(),
        created_at=now,
        queued_at=now,
        not_before=now,
        rung_at=now,
        tenant_id=tenant_id,
        kind=kind,
        queue=queue,
        lane=lane,
        urgency=urgency,
        model_id=model_id,
        resource_id=resource_id,
        request=dict(request),
        actor=actor,
        request_id=request_id,
        max_attempts=max_attempts,
        retry_of=retry_of,
        state=State.QUEUED,
    )
    session.add(job)
    session.flush()
    for dataset_id, role in set(datasets):
        session.add(JobDataset(job_id=job.id, dataset_id=dataset_id, role=role))
    say(session, job.id, now, "state", {"state": State.QUEUED})
    session.flush()
    return job


def say(session: Session, job_id: UUID, now: datetime, event: str, data: Mapping[str, Any]) -> None:
    """Add a line to a job's story. Callers hold the job's row, so lines stand in the order of commits."""
    session.add(JobEvent(job_id=job_id, created_at=now, event=event, data=dict(data)))


def log_line(session: Session, job_id: UUID, now: datetime, message: str) -> None:
    """Add a line for people to a job's story, shortened where it is long; none where there are many."""
    written = select(func.count()).where(JobEvent.job_id == job_id, JobEvent.event == "log")
    if session.scalar(written) < LOG_LINES:  # type: ignore[operator]
        say(session, job_id, now, "log", {"message": message[:LOG_CHARACTERS]})


def locked(session: Session, query: Select[Job]) -> Job | None:
    """The row of a query, held until the transaction ends (on SQLite a write transaction holds them all)."""
    return session.scalars(query.with_for_update().execution_options(populate_existing=True)).one_or_none()
