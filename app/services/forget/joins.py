"""Which open request a new one for the same joins, and what its due date then changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.db import touch
from app.services.forget import approve, due, states
from app.services.jobs.rows import State
from app.tables import ErasedRow, ForgetItem, ForgetRequest, ForgetTarget, Job

CANDIDATES = (
    select(ForgetRequest.id)
    .join(ForgetTarget, ForgetTarget.request_id == ForgetRequest.id)
    .where(
        ForgetTarget.tenant_id == bindparam("tenant_id"),
        ForgetTarget.target == bindparam("target"),
        ForgetRequest.scope == bindparam("scope"),
        ForgetRequest.shared_rows == bindparam("shared_rows"),
        ForgetRequest.accept == bindparam("accept"),
        ForgetRequest.duplicate_of.is_(None),
        ForgetRequest.state.not_in(states.ENDED),
    )
    .order_by(ForgetRequest.created_at.desc())
)


def find(session: Session, request: ForgetRequest, targets: Sequence[str]) -> ForgetRequest | None:
    """The open request of the same targets, scope and models, held; the new one is not stored yet.

    One that was approved before rows came in that the new request means is not joined: its entry does not
    name them.
    """
    same = {name: getattr(request, name) for name in ("tenant_id", "scope", "shared_rows", "accept")}
    for id in session.scalars(CANDIDATES, {"target": targets[0], **same}).all():
        held = states.lock(session, [id])
        if held and _is_same(session, held[0], request, targets):
            return held[0]
    return None


def hurry(session: Session, request: ForgetRequest, now: datetime) -> None:
    """Let the jobs that an approved request waits for keep the due dates of those that joined it too.

    A job that somebody holds is being claimed: nothing has to hurry it.
    """
    session.flush()
    due_at = due.nearest(session, [request.id])
    if due_at is None or due_at >= request.due_at:
        return
    mine = select(ForgetItem.job_id).where(ForgetItem.request_id == request.id, ForgetItem.kind == "model")
    waiting = select(Job).where(Job.id.in_(mine), Job.state == State.QUEUED).order_by(Job.id)
    held = waiting.with_for_update(skip_locked=True).execution_options(populate_existing=True)
    for job in session.scalars(held):
        due.bring_forward(job, due_at, now)
    touch(session)  # a tainted version may serve for a shorter time


def _is_same(session: Session, one: ForgetRequest, new: ForgetRequest, targets: Sequence[str]) -> bool:
    if one.state in states.ENDED or one.models != new.models or one.method != new.method:
        return False
    if new.rows_id is not None and new.rows_id != one.rows_id:
        return False
    if set(approve.named(session, one.id)) != set(targets):
        return False
    return one.sequence is None or _covers(session, one.sequence, new, targets)


def _covers(session: Session, sequence: int, new: ForgetRequest, targets: Sequence[str]) -> bool:
    """Whether an entry of the ledger names every row that there is of the targets now."""
    rows, _ = approve.reach(session, new, targets)
    for dataset_id, positions in rows.items():
        erased = select(ErasedRow.position).filter_by(dataset_id=dataset_id, sequence=sequence)
        if not positions <= set(session.scalars(erased)):
            return False
    return True
