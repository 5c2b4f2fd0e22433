"""What nobody holds any more: expired leases, bells that were not heard. The only way back into the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import exists, or_, select, update
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services.jobs.claims import ahead_in_lane, runnable
from app.services.jobs.ends import end_attempt
from app.services.jobs.rows import ACTIVE, Cause, State, locked
from app.tables import Job

RUNG_AT_ONCE = 200


@dataclass(frozen=True)
class Swept:
    """What one sweep found."""

    expired: int
    rung: int


def sweep(service: Service) -> Swept:
    """Take back expired leases, then ring for every job that could start and that nobody has come for."""
    expired = _expire(service)
    return Swept(expired, _ring(service))


def waiting_on(session: Session, lane: UUID) -> bool:
    """Whether a job of this lane is queued or running."""
    unfinished = (State.QUEUED, *ACTIVE)
    return bool(session.scalar(select(exists().where(Job.lane == lane, Job.state.in_(unfinished)))))


def waiting(service: Service, queues: Sequence[str]) -> bool:
    """Whether a job of these queues could start now."""
    with service.db.read() as session:
        return bool(runnable(session, queues, clock(session)))


def lane_head(service: Service, lane: UUID) -> tuple[UUID, str] | None:
    """The next job of a lane and its queue, for the bell of whoever has just left the lane."""
    with service.db.read() as session:
        row = session.execute(
            select(Job.id, Job.queue)
            .where(Job.lane == lane, Job.state == State.QUEUED)
            .order_by(Job.urgency, Job.created_at, Job.id)
            .limit(1)
        ).one_or_none()
    return None if row is None else (row.id, row.queue)


def _expire(service: Service) -> int:
    with service.db.read() as session:
        late = session.scalars(
            select(Job.id).where(Job.state.in_(ACTIVE), Job.lease_expires_at < clock(session))
        ).all()
    taken = 0
    for job_id in late:
        with service.db.begin() as session:
            now = clock(session)
            expired = select(Job).where(Job.id == job_id, Job.state.in_(ACTIVE), Job.lease_expires_at < now)
            if job := locked(session, expired):
                job.expired += 1
                end_attempt(session, job, Cause.WORKER_LOST, now)
                job.lease_epoch += 1  # whoever held it is fenced from now on, not from the next claim
                taken += 1
    return taken


def _ring(service: Service) -> int:
    with service.db.begin() as session:
        now = clock(session)
        old = now - timedelta(seconds=service.settings.jobs.sweep_seconds)
        unheard = or_(Job.rung_at.is_(None), Job.rung_at < Job.not_before, Job.rung_at < old)
        due = session.execute(
            select(Job.id, Job.queue)
            .where(Job.state == State.QUEUED, Job.not_before <= now, unheard, ~ahead_in_lane())
            .order_by(Job.urgency, Job.created_at)
            .limit(RUNG_AT_ONCE)
        ).all()
        session.execute(update(Job).where(Job.id.in_([row.id for row in due])).values(rung_at=now))
    rung = 0
    for row in due:
        if not service.bell.ring(row.id, row.queue):
            break  # the broker is away: the others would each wait for it
        rung += 1
    return rung
