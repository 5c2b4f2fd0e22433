"""Messages to callbacks: stored with the change that they tell of, read, and sent again when asked."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import NotFound
from app.schemas.deliveries import DeliveryRead
from app.service import Caller, Service
from app.services.callers import audit
from app.tables import Delivery, ForgetRequest

EVENTS = frozenset(
    {"forget.received", "forget.approved", "forget.completed", "forget.failed", "forget.due_soon"}
)


def emit(session: Session, request: ForgetRequest, event: str) -> None:
    """Store a message where the request has a callback; it goes out after the commit."""
    if request.callback_url is None or event not in EVENTS:
        return
    session.add(_message(request, event, clock(session)))


def browse(service: Service, tenant_id: UUID, request_id: UUID) -> list[DeliveryRead]:
    """Every message of a request, the oldest first; raises `NotFound`."""
    with service.db.read() as session:
        request = session.get(ForgetRequest, request_id)
        if request is None or request.tenant_id != tenant_id:
            raise NotFound("there is no such forget request")
        rows = session.scalars(
            select(Delivery).filter_by(request_id=request_id).order_by(Delivery.created_at, Delivery.id)
        )
        return [DeliveryRead.model_validate(row) for row in rows]


def replay(service: Service, caller: Caller, delivery_id: UUID) -> DeliveryRead:
    """Send a message again, as one of its own; raises `NotFound`."""
    with service.db.begin() as session:
        old = session.get(Delivery, delivery_id)
        if old is None or old.tenant_id != caller.tenant_id:
            raise NotFound("there is no such delivery")
        request = session.get_one(ForgetRequest, old.request_id)
        new = _message(request, old.event, clock(session))
        new.replay_of = old.id
        session.add(new)
        audit.record(
            session,
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            action="delivery.replayed",
            resources={"delivery": old.id},
        )
        session.flush()
        return DeliveryRead.model_validate(new)


def _message(request: ForgetRequest, event: str, now: datetime) -> Delivery:
    id = ids.new()
    return Delivery(
        id=id,
        created_at=now,
        tenant_id=request.tenant_id,
        request_id=request.id,
        event=event,
        payload=_payload(request, id, event, now),
        state="pending",
        attempts=0,
        next_at=now,
        delivered_at=None,
        last_status=None,
        last_error=None,
        replay_of=None,
    )


def _payload(request: ForgetRequest, id: UUID, event: str, now: datetime) -> dict[str, Any]:
    """Thin: what happened to which request, and where to read more."""
    name = ids.encode("fgt", request.id)
    data = {"id": name, "kind": "forget_request", "href": f"/v1/forget-requests/{name}"}
    if request.external_id is not None:
        data["external_id"] = request.external_id
    at = now.isoformat().replace("+00:00", "Z")
    return {"type": event, "timestamp": at, "id": ids.encode("dlv", id), "data": data}
