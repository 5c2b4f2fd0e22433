"""What callers ask of a job: cancel, retry, what it waits for, its story."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from app import ids
from app.db import clock
from app.errors import JobNotCancellable, JobNotRetryable, NotFound
from app.service import Caller
from app.services.callers import audit
from app.services.jobs.ends import cancel_row
from app.services.jobs.rows import ACTIVE, DONE, State, locked, new_job, say
from app.tables import Job, JobDataset, JobEvent

NEVER_CANCELLED = ("purge", "forget")  # a deletion that was accepted is carried out


def check_cancellable(job: Job) -> None:
    """Raises `JobNotCancellable` where a job has ended, or is one that is always carried out."""
    if job.state in DONE or job.kind in NEVER_CANCELLED:
        raise JobNotCancellable(f"The {job.kind} job is {job.state} and cannot be cancelled.")


def cancel_in(session: Session, caller: Caller, job_id: UUID) -> Job:
    """Cancel a job: a queued one at once, a running one at its next safe point. Asking again, or of a job
    that has ended, changes nothing."""
    job, now = own(session, caller, job_id), clock(session)
    if job.state not in (State.QUEUED, State.RUNNING):
        return job
    job.cancel_requested = True
    if job.state == State.QUEUED:
        cancel_row(session, job, now)
    else:
        job.state = State.CANCELLING
        job.revision += 1
        say(session, job.id, now, "state", {"state": State.CANCELLING})
    audit.record(
        session,
        tenant_id=caller.tenant_id,
        actor=caller.actor,
        action="job.cancelled",
        resources={"job": job.id},
    )
    return job


def retry_in(session: Session, caller: Caller, job_id: UUID) -> Job:
    """A new job that does what a failed or cancelled one was to do, with the rights of who asks now. The
    caller rings after its commit."""
    old = own(session, caller, job_id)
    if old.state not in (State.FAILED, State.CANCELLED):
        raise JobNotRetryable(f"The job is {old.state}; a failed or cancelled one can be retried.")
    read = select(JobDataset.dataset_id, JobDataset.role).where(JobDataset.job_id == old.id)
    job = new_job(
        session,
        tenant_id=old.tenant_id,
        kind=old.kind,
        queue=old.queue,
        lane=old.lane,
        urgency=old.urgency,
        model_id=old.model_id,
        resource_id=old.resource_id,
        request=_request(old.request, caller),
        actor=caller.actor,
        request_id=caller.request_id,
        datasets=[(dataset_id, role) for dataset_id, role in session.execute(read)],
        max_attempts=old.max_attempts,
        retry_of=old.id,
    )
    audit.record(
        session,
        tenant_id=caller.tenant_id,
        actor=caller.actor,
        action="job.retried",
        resources={"job": job.id, "retry_of": old.id},
    )
    return job


def _request(old: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """What a job is to do, without the right to promote of whoever asked first."""
    return {**old, "may_promote": caller.may("promote")} if "may_promote" in old else dict(old)


def blocked_by(session: Session, jobs: Iterable[Job]) -> Mapping[UUID, Sequence[UUID]]:
    """For each queued job whose lane is taken: the jobs that hold it, or wait before it for their next
    attempt. Derived, never stored."""
    lanes = {job.lane for job in jobs if job.lane is not None and job.state == State.QUEUED}
    if not lanes:
        return {}
    other = aliased(Job)
    place = tuple_(other.urgency, other.created_at, other.id)
    waits = and_(
        other.state == State.QUEUED,
        other.not_before > clock(session),
        place < tuple_(Job.urgency, Job.created_at, Job.id),
    )
    pairs = session.execute(
        select(Job.id, other.id)
        .join(other, and_(other.lane == Job.lane, other.id != Job.id))
        .where(Job.lane.in_(lanes), Job.state == State.QUEUED, or_(other.state.in_(ACTIVE), waits))
        .order_by(other.created_at)
    )
    found: dict[UUID, list[UUID]] = defaultdict(list)
    for job_id, other_id in pairs:
        found[job_id].append(other_id)
    return found


def events_after(session: Session, job_id: UUID, sequence: int, limit: int = 500) -> Sequence[JobEvent]:
    """The lines of a job's story after one that a reader has seen."""
    return session.scalars(
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.sequence > sequence)
        .order_by(JobEvent.sequence)
        .limit(limit)
    ).all()


def own(session: Session, caller: Caller, job_id: UUID) -> Job:
    """The caller's job, held: a publication that is on its way has ended. Raises `NotFound`."""
    job = locked(session, select(Job).where(Job.id == job_id, Job.tenant_id == caller.tenant_id))
    if job is None:
        raise NotFound(f"There is no job {ids.encode('job', job_id)}.")
    return job
