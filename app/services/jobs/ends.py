"""How an attempt ends: finished, cancelled, failed by its cause, or queued again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services.forget import states
from app.services.jobs.leases import ClaimedJob, guard, hold
from app.services.jobs.rows import DONE, Cause, State, log_line, say
from app.tables import Checkpoint, Job

FINAL = (Cause.INVALID_INPUT, Cause.ARTIFACT_CORRUPT, Cause.TIMEOUT, Cause.INTERNAL)
LOST_WORKERS = 2  # a job that takes a third one with it is poison
FIRST_WAIT, LONGEST_WAIT = 2.0, 300.0  # seconds
WORKED = timedelta(seconds=LONGEST_WAIT)  # an attempt that ran that long had what it needs
FREE_STALL = timedelta(minutes=15)  # that long, waiting for a dependency costs no attempt

SENTENCES = {
    Cause.OUT_OF_MEMORY: "The job ran out of memory, with a halved batch too.",
    Cause.WORKER_LOST: "The job lost its worker too often.",
    Cause.TIMEOUT: "The job ran longer than one attempt may.",
    Cause.DEPENDENCY: "Something that the job needs stayed away.",
    Cause.INTERNAL: "The job met an error of the service; its log names this job.",
}


def finish(session: Session, claimed: ClaimedJob, result: Mapping[str, Any]) -> None:
    """Close a job with its result, in the transaction that publishes it."""
    job = guard(session, claimed)
    now = clock(session)
    job.result = dict(result)
    job.progress = {**job.progress, "fraction": 1.0, "eta_seconds": 0}
    _close(session, job, State.SUCCEEDED, now)


def cancelled(service: Service, claimed: ClaimedJob) -> None:
    """Close a job that a caller cancelled and that has stopped; raises `LeaseLost`."""
    with service.db.begin() as session:
        cancel_row(session, hold(session, claimed), clock(session))


def fail(
    service: Service,
    claimed: ClaimedJob,
    cause: Cause,
    detail: str = "",
    errors: Sequence[Mapping[str, str]] = (),
) -> None:
    """End an attempt by the rule of its cause: queued again or failed; raises `LeaseLost`."""
    with service.db.begin() as session:
        end_attempt(session, hold(session, claimed), cause, clock(session), detail, errors)


def requeue(service: Service, claimed: ClaimedJob, why: str) -> None:
    """Queue a job again that was stopped through no fault of its own; the attempt is not counted."""
    with service.db.begin() as session:
        job, now = hold(session, claimed), clock(session)
        if job.cancel_requested:
            cancel_row(session, job, now)
        else:
            ended = job.attempt
            job.attempt -= 1
            queue_again(session, job, now, now, why, ended)


def end_attempt(
    session: Session,
    job: Job,
    cause: Cause,
    now: datetime,
    detail: str = "",
    errors: Sequence[Mapping[str, str]] = (),
) -> None:
    """The rules of `Cause` on a row that is held."""
    ended = job.attempt
    job.lost += cause is Cause.WORKER_LOST
    job.ooms += cause is Cause.OUT_OF_MEMORY
    if job.cancel_requested:
        cancel_row(session, job, now)
    elif (wait := _wait(job, cause, now)) is None:
        fail_row(session, job, cause, now, detail, errors)
    else:
        queue_again(session, job, now, now + wait, cause.value, ended)


def fail_row(
    session: Session,
    job: Job,
    cause: Cause,
    now: datetime,
    detail: str = "",
    errors: Sequence[Mapping[str, str]] = (),
) -> None:
    job.error = {"cause": cause, "detail": detail or SENTENCES.get(cause, ""), "errors": list(errors)}
    log_line(session, job.id, now, f"Attempt {job.attempt} failed: {cause}. {job.error['detail']}".strip())
    _close(session, job, State.FAILED, now)
    if job.kind == "forget":
        states.model_failed(session, job)


def cancel_row(session: Session, job: Job, now: datetime) -> None:
    job.error = {"cause": "cancelled", "detail": "A caller cancelled the job.", "errors": []}
    _close(session, job, State.CANCELLED, now)


def queue_again(session: Session, job: Job, now: datetime, due: datetime, why: str, ended: int) -> None:
    """Queue a job whose attempt number `ended` came to nothing; `why` says so in its story."""
    job.state = State.QUEUED
    job.queued_at = now
    job.not_before = due
    job.lease_owner = job.lease_expires_at = None
    job.revision += 1
    say(session, job.id, now, "state", {"state": State.QUEUED, "attempt": job.attempt, "after": why})
    pause = (due - now).total_seconds()
    then = f"tries again in {pause:.0f} s" if pause >= 1 else "tries again"
    log_line(session, job.id, now, f"Attempt {ended} ended: {why}; {then}.")


def drop_checkpoints(service: Service) -> int:
    """Destroy what finished jobs left for a successor; returns how many."""
    with service.db.read() as session:
        done = select(Checkpoint).join(Job, Job.id == Checkpoint.job_id).where(Job.state.in_(DONE))
        left = session.scalars(done).all()
    for checkpoint in left:
        service.vault.destroy(checkpoint.key_id, checkpoint.file_id)
        _forget(service, checkpoint.id)
    return len(left)


def _forget(service: Service, checkpoint_id: UUID) -> None:
    with service.db.begin() as session:
        session.execute(delete(Checkpoint).where(Checkpoint.id == checkpoint_id))


def _close(session: Session, job: Job, state: State, now: datetime) -> None:
    job.state = state
    job.finished_at = now
    job.lease_owner = job.lease_expires_at = None
    job.revision += 1
    say(session, job.id, now, "state", {"state": state})
    told = {"state": state, "result": job.result, "error": job.error}
    say(session, job.id, now, "done", told)
    session.flush()


def _wait(job: Job, cause: Cause, now: datetime) -> timedelta | None:
    """How long until the next attempt; `None` where there is none. Uncounted ones give theirs back."""
    if cause in FINAL:
        return None
    if cause is Cause.SUPERSEDED:
        job.attempt -= 1
        return timedelta()
    if cause is Cause.WORKER_LOST:
        return timedelta() if job.lost <= LOST_WORKERS and job.attempt < job.max_attempts else None
    if cause is Cause.OUT_OF_MEMORY:
        return timedelta() if job.ooms == 1 and job.attempt < job.max_attempts else None
    return _stall(job, cause, now)


def _stall(job: Job, cause: Cause, now: datetime) -> timedelta | None:
    """Exponential backoff with full jitter. Space on a disk is waited for however long it takes."""
    if job.stalled_since is None or (job.started_at is not None and now - job.started_at > WORKED):
        job.stalled_since, job.stalls = now, 0
    if cause is Cause.STORAGE_FULL or now - job.stalled_since < FREE_STALL:
        job.attempt -= 1
    elif job.attempt >= job.max_attempts:
        return None
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(job.stalls, 10))
    job.stalls += 1
    return timedelta(seconds=random.uniform(0, longest))
