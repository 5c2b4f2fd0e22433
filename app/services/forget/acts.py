"""What decisions do to a request whose row is held, be they of people or of the sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db import clock, touch
from app.service import Service
from app.services.erasure import entries
from app.services.forget import approve, joins, reads, states
from app.services.jobs.ends import cancel_row
from app.services.jobs.rows import State
from app.tables import ForgetItem, ForgetRequest, Job, Model, RestrictedRow


def own(session: Session, tenant_id: UUID, request_id: UUID) -> ForgetRequest:
    """A tenant's request to decide about: its jobs, models and row are held, in the order of publications.

    The caller holds `entries.lock`. Raises `NotFound`.
    """
    items = select(ForgetItem.job_id, ForgetItem.resource_id).where(
        ForgetItem.request_id == request_id, ForgetItem.kind == "model"
    )
    reads.get(session, tenant_id, request_id)
    pairs = session.execute(items).all()
    jobs = select(Job).where(Job.id.in_([row.job_id for row in pairs if row.job_id])).order_by(Job.id)
    session.scalars(jobs.with_for_update().execution_options(populate_existing=True)).all()
    models = select(Model.id).where(Model.id.in_([row.resource_id for row in pairs])).order_by(Model.id)
    session.execute(models.with_for_update(read=True, key_share=True)).all()
    return states.lock(session, [request_id])[0]


def let_go(service: Service, session: Session, request: ForgetRequest, actor: str) -> Sequence[Job]:
    """Take the hold from a request whose row is held; the jobs to ring for."""
    request.hold = None
    request.revision += 1
    states.tell(session, request, "forget.released", actor)
    session.flush()
    if request.sequence is None:
        return []
    models = [item.resource_id for item in models_of(session, request.id) if item.state == "locating"]
    queued = approve.start(session, request, models, service.settings, actor=actor)
    joins.hurry(session, request, clock(session))
    return queued


def take_back(
    service: Service, session: Session, request: ForgetRequest, actor: str, reason: str | None = None
) -> None:
    """Cancel a request that nobody joined and no job has taken up. The caller commits next."""
    written = service.ledger.get(request.id, "approve")
    if request.sequence is None and written is not None:  # its commit was lost: say it, then lift it
        approve.carry_out(service, session, request, str(written.body["actor"]))
    end(session, request, "cancelled", reason, actor)
    if request.sequence is None:
        return
    leave_jobs(session, request, clock(session))
    for item in models_of(session, request.id):
        item.state = "cancelled"
    lift = entries.lift(session, request, actor)
    session.flush()
    entries.write_object(service.ledger, lift)


def taken(session: Session, request_id: UUID) -> bool:
    """Whether a job has taken the request up, for some model at least."""
    return any(item.state != "locating" for item in models_of(session, request_id))


def end(session: Session, request: ForgetRequest, state: str, reason: str | None, actor: str) -> None:
    """Reject or cancel a request: nothing that it named is restricted any more."""
    request.reason = reason
    session.execute(delete(RestrictedRow).where(RestrictedRow.request_id == request.id))
    states.move(request, state, clock(session))
    states.tell(session, request, f"forget.{state}", actor)
    touch(session)


def leave_jobs(session: Session, request: ForgetRequest, now: datetime) -> None:
    """Take a request off the jobs that it waits for; one that no other waits for is cancelled."""
    session.flush()
    for item in models_of(session, request.id):
        if item.job_id is None:
            continue
        job = session.get_one(Job, item.job_id)
        others = select(ForgetItem.request_id).where(
            ForgetItem.job_id == job.id,
            ForgetItem.request_id != request.id,
            ForgetItem.state.not_in(("done", "cancelled")),
        )
        if job.state == State.QUEUED and session.scalar(others.limit(1)) is None:
            cancel_row(session, job, now)
        item.job_id = None


def models_of(session: Session, request_id: UUID) -> Sequence[ForgetItem]:
    """What is said of each model that a request concerns, in the order of their ids."""
    query = select(ForgetItem).where(ForgetItem.request_id == request_id, ForgetItem.kind == "model")
    return session.scalars(query.order_by(ForgetItem.resource_id)).all()
