"""Which open request a new one for the same joins."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.forget import approve, states
from app.tables import ErasedRow, ForgetRequest, ForgetTarget


def find(session: Session, request: ForgetRequest, targets: Sequence[str]) -> ForgetRequest | None:
    """The open request of the same targets, scope and models, held; the new one is not stored yet.

    One that was approved before rows came in that the new request means is not joined: its entry does not
    name them.
    """
    candidates = (
        select(ForgetRequest.id)
        .join(ForgetTarget, ForgetTarget.request_id == ForgetRequest.id)
        .where(
            ForgetTarget.tenant_id == request.tenant_id,
            ForgetTarget.target == targets[0],
            ForgetRequest.scope == request.scope,
            ForgetRequest.shared_rows == request.shared_rows,
            ForgetRequest.accept == request.accept,
            ForgetRequest.duplicate_of.is_(None),
            ForgetRequest.state.not_in(states.ENDED),
        )
        .order_by(ForgetRequest.created_at.desc())
    )
    for id in session.scalars(candidates).all():
        held = states.lock(session, [id])
        if held and _is_same(session, held[0], request, targets):
            return held[0]
    return None


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
