"""The claim: one conditional UPDATE gives a queued job to one worker, however often the bell rang."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app.db import clock
from app.service import Service
from app.services.jobs.leases import ClaimedJob
from app.services.jobs.rows import ACTIVE, State, say
from app.tables import Job

LOOKED_AT = 20  # candidates of one transaction


def claim(service: Service, queues: Sequence[str], owner: str) -> ClaimedJob | None:
    """Take the most urgent, then oldest, job of these queues whose lane is free, if there is one."""
    lease = timedelta(seconds=service.settings.jobs.lease_seconds)
    while True:
        with service.db.begin() as session:
            now = clock(session)
            candidates = runnable(session, queues, now)
            for job_id in candidates:
                if claimed := _take(session, job_id, owner, now, lease):
                    return claimed
        if not candidates:
            return None


def runnable(session: Session, queues: Sequence[str], now: datetime) -> Sequence[UUID]:
    """Jobs that may start now: due, and first in their lane."""
    return session.scalars(
        select(Job.id)
        .where(
            Job.state == State.QUEUED,
            Job.queue.in_(queues),
            Job.not_before <= now,
            ~ahead_in_lane(),
        )
        .order_by(Job.urgency, Job.created_at, Job.id)
        .limit(LOOKED_AT)
    ).all()


def ahead_in_lane() -> ColumnElement[bool]:
    """Whether a job's lane is held, or another waits in it that is more urgent or older.

    One that waits for its next attempt keeps its place: what came later builds on it.
    """
    other = aliased(Job)
    place = tuple_(other.urgency, other.created_at, other.id)
    return exists().where(
        other.lane == Job.lane,
        other.id != Job.id,
        or_(
            other.state.in_(ACTIVE),
            and_(other.state == State.QUEUED, place < tuple_(Job.urgency, Job.created_at, Job.id)),
        ),
    )


def _take(session: Session, job_id: UUID, owner: str, now: datetime, lease: timedelta) -> ClaimedJob | None:
    try:
        with session.begin_nested():
            row = session.execute(
                update(Job)
                .where(Job.id == job_id, Job.state == State.QUEUED, Job.not_before <= now)
                .values(
                    state=State.RUNNING,
                    attempt=Job.attempt + 1,
                    started_at=now,
                    heartbeat_at=now,
                    lease_owner=owner,
                    lease_expires_at=now + lease,
                    lease_epoch=Job.lease_epoch + 1,
                    progress={},
                    revision=Job.revision + 1,
                )
                .returning(Job)
                .execution_options(synchronize_session=False, populate_existing=True)
            ).one_or_none()
    except IntegrityError:  # another job took the lane meanwhile
        return None
    if row is None:
        return None
    job: Job = row[0]
    say(session, job.id, now, "state", {"state": State.RUNNING, "attempt": job.attempt, "worker": owner})
    return ClaimedJob(
        id=job.id,
        tenant_id=job.tenant_id,
        kind=job.kind,
        queue=job.queue,
        lane=job.lane,
        urgency=job.urgency,
        model_id=job.model_id,
        resource_id=job.resource_id,
        request=job.request,
        request_id=job.request_id,
        actor=job.actor,
        attempt=job.attempt,
        epoch=job.lease_epoch,
        halve_batch=job.ooms > 0,
    )
