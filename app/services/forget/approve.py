"""Approval: the ledger's entry, written before any work, and the jobs that carry it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from app import ids
from app.config import Settings
from app.db import clock
from app.service import Service
from app.services.erasure import entries
from app.services.forget import closure, due, locate, states
from app.services.jobs.rows import State, new_job
from app.tables import ForgetItem, ForgetRequest, ForgetTarget, Job, RestrictedRow

WAITING = (
    select(Job)
    .where(Job.lane == bindparam("lane"), Job.kind == "forget", Job.state == State.QUEUED)
    .order_by(Job.created_at, Job.id)
    .limit(1)
    .with_for_update()
    .execution_options(populate_existing=True)
)


def carry_out(
    service: Service,
    session: Session,
    request: ForgetRequest,
    actor: str,
    targets: Sequence[str] | None = None,
) -> list[Job]:
    """Enter an erasure into the ledger and queue what it needs; the jobs to ring for after the commit.

    The caller holds `entries.lock` and the request's row, and commits next: the ledger's object is there.
    `targets`: those of a request that was received just now, and has restricted nothing.
    """
    is_new = targets is not None
    if targets is None:
        targets = named(session, request.id)
        session.execute(delete(RestrictedRow).where(RestrictedRow.request_id == request.id))
    rows, left = reach(session, request, targets)
    entry = entries.approve(session, request, actor, targets, rows)
    request.sequence, request.decider = entry.sequence, actor
    request.evidence = {**request.evidence, **counts(rows)}
    request.exceptions = [*request.exceptions, *_shared(left)]
    states.move(request, "locating", entry.created_at)
    session.flush()
    limits = models_of(request)
    found = locate.touched(session, request.tenant_id, rows, classes_of(targets), limits)
    versions = [id for line in found.values() for id in line]
    items = closure.items(session, request, rows, versions)
    # a job in the lane of a running update makes that stop, and is done when nothing of the rows is in memory
    models = dict.fromkeys([*found, *locate.learners(session, request.tenant_id, rows, limits)])
    queued = start(
        session, request, list(models), service.settings, actor=actor, now=entry.created_at, is_new=is_new
    )
    session.add_all(items)
    states.tell(session, request, "forget.approved", actor)
    session.flush()
    entries.write_object(service.ledger, entry, targets, rows, request.shared_rows)
    return queued


def start(
    session: Session,
    request: ForgetRequest,
    models: Sequence[UUID],
    settings: Settings,
    *,
    actor: str,
    now: datetime | None = None,
    is_new: bool = False,
) -> list[Job]:
    """Make a job for each model, or where there is none the purge; the jobs to ring for. Nothing is queued
    while the request is on hold. One that `is_new` has no items yet, and nobody joined it."""
    now = now or clock(session)
    on_hold = states.held(request, now)
    queued = []
    for model_id in models:
        job = None
        if not on_hold:
            job, is_news = _queued(session, request, model_id, settings, actor=actor, now=now)
            queued += [job] if is_news else []
        _item(session, request, model_id, job, is_new=is_new)
    if models and is_new:
        return queued  # it stays where it is
    states.recompute(session, request, now)
    if request.state == "purging":
        purge = states.queue_purge(session, request.tenant_id)
        queued += [purge] if purge else []
    return queued


def queue_forget(
    session: Session,
    request: ForgetRequest,
    model_id: UUID,
    settings: Settings,
    *,
    actor: str,
    retry_of: UUID | None = None,
) -> Job:
    """The job that cleans a model for a request: one that waits already, else a new one; and its item."""
    now = clock(session)
    job, _ = _queued(session, request, model_id, settings, actor=actor, now=now, retry_of=retry_of)
    _item(session, request, model_id, job)
    session.flush()
    return job


def _queued(
    session: Session,
    request: ForgetRequest,
    model_id: UUID,
    settings: Settings,
    *,
    actor: str,
    now: datetime,
    retry_of: UUID | None = None,
) -> tuple[Job, bool]:
    """The job, and whether a worker has to hear of it: one that waits was rung for, and is swept."""
    urgency = due.urgency(request.due_at, now)
    latest = max(now, request.due_at)
    # one that waits is held: it is claimed after this commit
    job, is_news = session.scalars(WAITING, {"lane": model_id}).one_or_none(), False
    if job is None:
        is_news = True
        job = new_job(
            session,
            tenant_id=request.tenant_id,
            kind="forget",
            queue=settings.jobs.update_queue,
            lane=model_id,
            urgency=urgency,
            model_id=model_id,
            resource_id=None,
            request={},
            actor=actor,
            request_id=None,
            max_attempts=settings.jobs.max_attempts,
            retry_of=retry_of,
        )
        job.not_before = min(now + timedelta(seconds=settings.forget.batch_window_seconds), latest)
    else:
        job.urgency = min(job.urgency, urgency)
        is_news = latest < job.not_before
        job.not_before = min(job.not_before, latest)
    job.deadline_at = min(job.deadline_at or request.due_at, request.due_at)
    return job, is_news


def named(session: Session, request_id: UUID) -> list[str]:
    """The targets of a request, each once."""
    return list(session.scalars(select(ForgetTarget.target).filter_by(request_id=request_id).distinct()))


def reach(
    session: Session, request: ForgetRequest, targets: Sequence[str]
) -> tuple[dict[UUID, set[int]], dict[UUID, set[int]]]:
    """The rows that a request takes away, and those that it leaves because they name other persons too."""
    rows = locate.rows(session, request.tenant_id, targets)
    if request.shared_rows != "report" or request.scope != "subject":
        return rows, {}
    subjects = {target.removeprefix("subject:") for target in targets}
    left = locate.shared(session, rows, subjects)
    kept = {id: positions - left.get(id, set()) for id, positions in rows.items()}
    return {id: positions for id, positions in kept.items() if positions}, left


def classes_of(targets: Sequence[str]) -> list[UUID]:
    """The classes among targets."""
    return [UUID(hex=one.removeprefix("class:")) for one in targets if one.startswith("class:")]


def models_of(request: ForgetRequest) -> set[UUID] | None:
    """The models that a request is limited to; `None`: all of the tenant."""
    return None if request.models is None else {UUID(hex=id) for id in request.models}


def counts(rows: Mapping[UUID, set[int]]) -> dict[str, Any]:
    """How many rows were found, and in how many datasets."""
    return {"rows": sum(len(positions) for positions in rows.values()), "datasets": len(rows)}


def _shared(left: Mapping[UUID, set[int]]) -> list[dict[str, Any]]:
    return [
        {"code": "shared-rows", "dataset": ids.encode("dst", id), "rows": len(positions)}
        for id, positions in sorted(left.items())
    ]


def _item(
    session: Session, request: ForgetRequest, model_id: UUID, job: Job | None, *, is_new: bool = False
) -> None:
    """The item of a model, made or begun again."""
    key = {"request_id": request.id, "kind": "model", "resource_id": model_id}
    item = None if is_new else session.get(ForgetItem, key)
    if item is None:
        item = ForgetItem(**key, tenant_id=request.tenant_id, detail={})
        session.add(item)
    item.state, item.job_id = "locating", job.id if job else None
