"""Cancelling and retrying once per idempotency key."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.errors import JobNotRetryable, Purged
from app.schemas.jobs import JobRead
from app.service import Caller, Service
from app.services import jobs
from app.services.callers.idempotency import Once
from app.services.jobs.rows import DONE, State
from app.services.models import models
from app.services.policies import offers
from app.tables import Dataset, Job, JobDataset


def cancel(service: Service, caller: Caller, job_id: UUID, once: Once | None = None) -> JobRead:
    """Ask a job to stop; raises `NotFound`, `JobNotCancellable`."""
    with service.db.begin() as session:
        if once:
            once.begin(session)
        jobs.check_cancellable(jobs.own(session, caller, job_id))
        answer = JobRead.of(jobs.cancel_in(session, caller, job_id))
        if once:
            body = answer.model_dump(mode="json")
            once.finish(session, status=202, body=body, headers=location(job_id), resource_id=job_id)
    return answer


def retry(service: Service, caller: Caller, job_id: UUID, once: Once | None = None) -> JobRead:
    """Queue a new job like one that failed or was cancelled.

    Raises `NotFound`, `JobNotRetryable`, and `Purged` where what it works on was deleted.
    """
    with service.db.begin() as session:
        if once:
            once.begin(session)
        _check_retry(session, jobs.own(session, caller, job_id))
        job = jobs.retry_in(session, caller, job_id)
        offers.retried(session, job_id, job.id)
        answer = JobRead.of(job)
        if once:
            body = answer.model_dump(mode="json")
            once.finish(session, status=202, body=body, headers=location(job.id), resource_id=job.id)
    service.bell.ring(job.id, job.queue)
    return answer


def _check_retry(session: Session, old: Job) -> None:
    """Raise where a retry is on its way, or what the job works on was deleted. The caller holds the job."""
    if old.state not in (State.FAILED, State.CANCELLED):
        return  # refused for that
    again = session.scalar(select(Job.id).where(Job.retry_of == old.id, Job.state.not_in(DONE)).limit(1))
    if again is not None:
        raise JobNotRetryable(f"{ids.encode('job', again)} is a retry of this job and has not ended")
    if old.kind == "forget":
        raise JobNotRetryable("a forget job is tried again by its request: POST …/forget-requests/{id}/retry")
    if old.kind != "update":
        return
    if old.model_id is not None:
        models.get(session, old.tenant_id, old.model_id, lock=True)
    gone = session.scalar(
        select(Dataset.id)
        .join(JobDataset, JobDataset.dataset_id == Dataset.id)
        .where(JobDataset.job_id == old.id, Dataset.deleted_at.is_not(None))
        .order_by(Dataset.id)
        .limit(1)
    )
    if gone is not None:
        raise Purged(f"{ids.encode('dst', gone)}, which the job reads, was deleted")


def location(job_id: UUID) -> dict[str, str]:
    """The headers of every 202: where the job is, and when to look again."""
    return {"Location": f"/v1/jobs/{ids.encode('job', job_id)}", "Retry-After": "2"}
