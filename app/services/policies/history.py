"""The history of a model: what its update policy decided, and where its aliases went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.schemas.policies import HistoryRead
from app.service import Service
from app.services.models import models
from app.services.paging import Page, Place, Window, window
from app.tables import AliasMove, Decision, Model, Version


def note(
    session: Session,
    model: Model,
    event: str,
    reason: str,
    *,
    actor: str,
    datasets: Iterable[UUID] = (),
    code: str | None = None,
    job_id: UUID | None = None,
    version: int | None = None,
    alias: str | None = None,
    gates: Sequence[Any] = (),
) -> None:
    """Add a line. `reason` never quotes a label: it outlives the rows."""
    session.add(
        Decision(
            id=ids.new(),
            tenant_id=model.tenant_id,
            created_at=clock(session),
            model_id=model.id,
            event=event,
            reason=reason,
            code=code,
            actor=actor,
            datasets=[id.hex for id in datasets],
            job_id=job_id,
            version=version,
            alias=alias,
            gates=list(gates),
        )
    )
    session.flush()


def newest(session: Session, model_id: UUID) -> Decision | None:
    """The last line that was added."""
    query = select(Decision).where(Decision.model_id == model_id)
    return session.scalar(query.order_by(Decision.created_at.desc(), Decision.id.desc()).limit(1))


def browse(
    service: Service, tenant_id: UUID, model_id: UUID, page: Page[Place], event: str | None = None
) -> Window[HistoryRead]:
    """The lines of a model, oldest first; with `event` only those."""
    with service.db.read() as session:
        model = models.get(session, tenant_id, model_id)
        decided = select(Decision).where(Decision.model_id == model.id)
        moved = select(AliasMove).where(AliasMove.model_id == model.id)
        if event is not None:
            decided = decided.where(Decision.event == event)
            moved = moved.where(_move_event() == event)
        decisions = window(session, decided, page, Decision)
        moves = window(session, moved, page, AliasMove)
        numbers = _numbers(session, moves.rows)
    lines = [_decision(row) for row in decisions.rows] + [_move(row, numbers) for row in moves.rows]
    lines.sort(key=lambda line: (line.created_at, line.id))
    return Window(lines[: page.size], more=decisions.more or moves.more or len(lines) > page.size)


def _move_event() -> ColumnElement[str]:
    return case((AliasMove.version_id.is_(None), "alias-removed"), else_="alias-moved")


def _numbers(session: Session, moves: Iterable[AliasMove]) -> dict[UUID, int]:
    wanted = {move.version_id for move in moves if move.version_id}
    rows = session.execute(select(Version.id, Version.number).where(Version.id.in_(wanted)))
    return {id: number for id, number in rows}


def _decision(row: Decision) -> HistoryRead:
    return HistoryRead(
        id=row.id,
        event=row.event,
        reason=row.reason,
        code=row.code,
        actor=row.actor,
        datasets=[UUID(hex=id) for id in row.datasets],
        job=row.job_id,
        version=row.version,
        alias=row.alias,
        gates=row.gates,
        created_at=row.created_at,
    )


def _move(row: AliasMove, numbers: dict[UUID, int]) -> HistoryRead:
    return HistoryRead(
        id=row.id,
        event="alias-moved" if row.version_id else "alias-removed",
        reason=row.reason,
        actor=row.actor,
        version=numbers[row.version_id] if row.version_id else None,
        alias=row.name,
        created_at=row.created_at,
    )
