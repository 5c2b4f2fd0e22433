"""Writing messages to callbacks: thin, and stored with the change that they tell of."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.tables import Delivery, ForgetRequest

# in the order in which they may happen at one time
EVENTS = ("forget.received", "forget.approved", "forget.due_soon", "forget.failed", "forget.completed")


def emit(session: Session, request: ForgetRequest, event: str) -> None:
    """Store a message where the request has a callback; it goes out after the commit."""
    if request.callback_url is None or event not in EVENTS:
        return
    session.add(message(request, event, clock(session)))


def message(request: ForgetRequest, event: str, now: datetime) -> Delivery:
    """A message that is due now."""
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
