"""Showing requests: counts, stages and states, never whom they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String, cast, exists, or_, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import NotFound
from app.schemas.forget import ForgetRead, ForgetSummary
from app.service import Caller, Service
from app.services.callers import audit
from app.services.forget import due, states
from app.services.paging import Page, Place, Window, window
from app.tables import Certificate, ForgetItem, ForgetRequest

PREFIXES = {
    "model": "mdl",
    "version": "ver",
    "dataset": "dst",
    "evaluation": "dst",
    "export": "exp",
    "job": "job",
}
PASSED = (*states.WORKED_ON, "done")


@dataclass(frozen=True)
class Filters:
    """Which requests a list shows."""

    state: str | None = None
    model_id: UUID | None = None
    external_id: str | None = None
    created_after: datetime | None = None


@dataclass(frozen=True)
class Seen:
    """A request as it was at a moment."""

    request: ForgetRequest
    now: datetime

    @property
    def created_at(self) -> datetime:
        return self.request.created_at

    @property
    def id(self) -> UUID:
        return self.request.id


def look(service: Service, caller: Caller, request_id: UUID) -> ForgetRead:
    """One request; that somebody looked goes into the audit chain. Raises `NotFound`."""
    with service.db.begin() as session:
        request = get(session, caller.tenant_id, request_id)
        states.tell(session, request, "forget.read", caller.actor)
        return read(session, request)


def browse(service: Service, caller: Caller, page: Page[Place], filters: Filters) -> Window[Seen]:
    """A page of a tenant's requests, oldest first; audited too."""
    query = select(ForgetRequest).where(ForgetRequest.tenant_id == caller.tenant_id)
    if filters.state is not None:
        query = query.where(ForgetRequest.state == filters.state)
    if filters.external_id is not None:
        query = query.where(ForgetRequest.external_id == filters.external_id)
    if filters.created_after is not None:
        query = query.where(ForgetRequest.created_at > filters.created_after)
    if filters.model_id is not None:
        touched = exists().where(
            or_(
                ForgetItem.request_id == ForgetRequest.id, ForgetItem.request_id == ForgetRequest.duplicate_of
            ),
            ForgetItem.kind == "model",
            ForgetItem.resource_id == filters.model_id,
        )
        named = cast(ForgetRequest.models, String).contains(filters.model_id.hex)
        query = query.where(touched | named)
    with service.db.begin() as session:
        audit.record(
            session, tenant_id=caller.tenant_id, actor=caller.actor, action="forget.listed", resources={}
        )
        found = window(session, query, page, ForgetRequest)
        now = clock(session)
    return Window([Seen(row, now) for row in found.rows], found.more)


def get(session: Session, tenant_id: UUID, request_id: UUID) -> ForgetRequest:
    """The row of a tenant's request; raises `NotFound`."""
    row = session.get(ForgetRequest, request_id)
    if row is None or row.tenant_id != tenant_id:
        raise NotFound("there is no such forget request")
    return row


def summary(seen: Seen) -> ForgetSummary:
    """A request in a list."""
    return ForgetSummary(**_summary(seen.request, seen.now))


def read(session: Session, request: ForgetRequest, now: datetime | None = None) -> ForgetRead:
    """Everything about a request; a duplicate shows the items of the one that it joined."""
    items = session.scalars(
        select(ForgetItem)
        .where(ForgetItem.request_id == (request.duplicate_of or request.id))
        .order_by(ForgetItem.kind, ForgetItem.resource_id)
    ).all()
    certified = request.state in states.ENDED and session.scalar(
        select(Certificate.id).where(Certificate.request_id == request.id)
    )
    return _shown(request, now or clock(session), items, request.evidence, bool(certified))


def received(request: ForgetRequest, now: datetime) -> ForgetRead:
    """A request as it came in: the same whether anything is stored of whom it names."""
    return _shown(request, now, [], {}, False)


def _shown(
    request: ForgetRequest,
    now: datetime,
    items: Sequence[ForgetItem],
    evidence: dict[str, Any],
    certified: bool,
) -> ForgetRead:
    path = url(request.id)
    return ForgetRead(
        **_summary(request, now),
        shared_rows=request.shared_rows,
        models=None if request.models is None else [UUID(hex=id) for id in request.models],
        method=request.method,
        accept=request.accept,
        rows=request.rows_id,
        callback=request.callback_url and {"url": request.callback_url},
        extension=request.extension,
        creator=request.creator,
        decider=request.decider,
        reason=request.reason,
        ledger_sequence=request.sequence,
        stages=_stages(request, items),
        items=[
            {
                "kind": item.kind,
                "resource": _name(item),
                "state": item.state,
                "job": item.job_id,
                "detail": item.detail,
            }
            for item in items
        ],
        evidence=evidence,
        exceptions=request.exceptions,
        links={"self": path, "certificate": f"{path}/certificate" if certified else None},
    )


def url(request_id: UUID) -> str:
    """Where a request is read."""
    return f"/v1/forget-requests/{ids.encode('fgt', request_id)}"


def location(request: ForgetRequest) -> dict[str, str]:
    """The headers of every 202: where the request is, and when to look again."""
    return {"Location": url(request.id), "Retry-After": "2"}


def _summary(request: ForgetRequest, now: datetime) -> dict[str, Any]:
    done = request.state in states.ENDED
    return {
        "id": request.id,
        "state": request.state,
        "done": done,
        "scope": request.scope,
        "persons": request.persons,
        "external_id": request.external_id,
        "regulation": request.regulation,
        "submitted_at": request.submitted_at,
        "due_at": request.due_at,
        "days_left": due.days_left(request.due_at, now),
        "overdue": not done and request.due_at < now,
        "hold": request.hold,
        "duplicate_of": request.duplicate_of,
        "created_at": request.created_at,
        "finished_at": request.finished_at,
        "revision": request.revision,
    }


def _stages(request: ForgetRequest, items: Sequence[ForgetItem]) -> list[dict[str, Any]]:
    models = [item for item in items if item.kind == "model"]
    return [
        {
            "stage": stage,
            **request.stages[stage],
            "items": [
                {"kind": item.kind, "resource": _name(item), "state": _within(stage, item)} for item in models
            ]
            if stage in states.WORKED_ON
            else [],
        }
        for stage in states.STAGES
        if stage in request.stages
    ]


def _within(stage: str, item: ForgetItem) -> str:
    """How far a model is with one stage."""
    if item.state == "cancelled":
        return "cancelled"
    failed = item.state == "failed"
    at = PASSED.index(item.detail.get("failed_at", "locating") if failed else item.state)
    if PASSED.index(stage) == at:
        return "failed" if failed else "running"
    return "done" if PASSED.index(stage) < at else "waiting"


def _name(item: ForgetItem) -> str:
    prefix = PREFIXES.get(item.kind)
    return ids.encode(prefix, item.resource_id) if prefix else item.resource_id.hex
