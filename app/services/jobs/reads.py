"""Reading jobs: one, a page of them, their log lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import change_counter
from app.errors import NotFound
from app.service import Service
from app.services import jobs
from app.services.paging import Page, Place, Window, window
from app.tables import Job, JobEvent


@dataclass(frozen=True)
class JobSeen:
    """A job as it is now, what it waits for, and the change counter of the same moment."""

    job: Job
    blocked_by: Sequence[UUID]
    counter: int = 0

    @property
    def created_at(self) -> datetime:
        return self.job.created_at

    @property
    def id(self) -> UUID:
        return self.job.id


@dataclass(frozen=True)
class Filters:
    """Which jobs a list shows."""

    state: str | None = None
    kind: str | None = None
    model_id: UUID | None = None
    created_after: datetime | None = None


def read(service: Service, tenant_id: UUID, job_id: UUID) -> JobSeen:
    """One job; raises `NotFound`."""
    with service.db.read() as session:
        job = get(session, tenant_id, job_id)
        waits = jobs.blocked_by(session, [job])
        return JobSeen(job, waits.get(job.id, ()), change_counter(session))


def get(session: Session, tenant_id: UUID, job_id: UUID) -> Job:
    """The row of a tenant's job; raises `NotFound`."""
    job = session.get(Job, job_id)
    if job is None or job.tenant_id != tenant_id:
        raise NotFound("there is no such job")
    return job


def browse(service: Service, tenant_id: UUID, page: Page[Place], filters: Filters) -> Window[JobSeen]:
    """A page of a tenant's jobs."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    if filters.state is not None:
        query = query.where(Job.state == filters.state)
    if filters.kind is not None:
        query = query.where(Job.kind == filters.kind)
    if filters.model_id is not None:
        query = query.where(Job.model_id == filters.model_id)
    if filters.created_after is not None:
        query = query.where(Job.created_at > filters.created_after)
    with service.db.read() as session:
        found = window(session, query, page, Job)
        waits = jobs.blocked_by(session, found.rows)
    return Window([JobSeen(job, waits.get(job.id, ())) for job in found.rows], found.more)


def lines(service: Service, tenant_id: UUID, job_id: UUID, page: Page[int], event: str) -> Window[JobEvent]:
    """A page of one kind of line of a job's story; raises `NotFound`."""
    with service.db.read() as session:
        get(session, tenant_id, job_id)
        query = select(JobEvent).where(
            JobEvent.job_id == job_id, JobEvent.event == event, JobEvent.sequence > (page.after or 0)
        )
        rows = session.scalars(query.order_by(JobEvent.sequence).limit(page.size + 1)).all()
    return Window(list(rows[: page.size]), more=len(rows) > page.size)
