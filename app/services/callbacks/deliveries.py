"""Messages to callbacks: read, and sent again when asked."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from app.db import clock
from app.errors import NotFound
from app.schemas.deliveries import DeliveryRead
from app.service import Caller, Service
from app.services.callbacks import messages
from app.services.callers import audit
from app.tables import Delivery, ForgetRequest


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
        new = messages.message(request, old.event, clock(session))
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
