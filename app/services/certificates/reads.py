"""Reading certificates; every look is audited."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from app import ids
from app.errors import NotFound
from app.service import Caller, Service
from app.services.callers import audit
from app.tables import Certificate, ForgetRequest


def of_request(service: Service, caller: Caller, request_id: UUID) -> Certificate:
    """The certificate of a request of the caller's tenant; raises `NotFound` until it is issued."""
    with service.db.begin() as session:
        request = session.get(ForgetRequest, request_id)
        if request is None or request.tenant_id != caller.tenant_id:
            raise NotFound("there is no such forget request")
        found = session.scalar(select(Certificate).filter_by(request_id=request_id))
        if found is None:
            name = ids.encode("fgt", request_id)
            raise NotFound(f"{name} is {request.state}: its certificate is issued when it is completed")
        audit.record(
            session,
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            action="certificate.read",
            resources={"forget_request": request_id, "certificate": found.id},
        )
        return found
