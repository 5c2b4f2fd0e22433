"""Cancelling and retrying once per idempotency key."""

from __future__ import annotations

from uuid import UUID

from app import ids
from app.schemas.jobs import JobRead
from app.service import Caller, Service
from app.services import jobs
from app.services.callers.idempotency import Once


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
    """Queue a new job like one that failed or was cancelled; raises `NotFound`, `JobNotRetryable`."""
    with service.db.begin() as session:
        if once:
            once.begin(session)
        job = jobs.retry_in(session, caller, job_id)
        answer = JobRead.of(job)
        if once:
            body = answer.model_dump(mode="json")
            once.finish(session, status=202, body=body, headers=location(job.id), resource_id=job.id)
    service.bell.ring(job.id, job.queue)
    return answer


def location(job_id: UUID) -> dict[str, str]:
    """The headers of every 202: where the job is, and when to look again."""
    return {"Location": f"/v1/jobs/{ids.encode('job', job_id)}", "Retry-After": "2"}
