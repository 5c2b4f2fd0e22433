"""The audit chain: reading it and checking it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.deps import Admin, ServiceDep
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import ValidationFailed
from app.schemas.audit import AuditEventRead, AuditVerdict
from app.schemas.base import Text
from app.schemas.times import Instant
from app.services.callers import audit

router = APIRouter(prefix="/audit-events", tags=["audit"])


@router.get("", operation_id="audit_events_list", responses=problems(ValidationFailed))
def browse(
    caller: Admin,
    service: ServiceDep,
    paging: PagingDep,
    response: Response,
    action: Annotated[Text | None, Query(description="Only this action, such as `alias.moved`.")] = None,
    created_after: Annotated[Instant | None, Query(description="Only younger events.")] = None,
) -> PageOf[AuditEventRead]:
    """Every change of this tenant, in the order of the chain."""
    found = audit.browse(
        service, caller.tenant_id, paging.number(), action=action, created_after=created_after
    )
    return paging.answer(found, AuditEventRead.model_validate, response, by="sequence")


@router.get("/verify", operation_id="audit_events_verify", responses=problems())
def verify(caller: Admin, service: ServiceDep) -> AuditVerdict:
    """Recompute the chain; names the first event that was altered or follows a removed one."""
    verdict = audit.verify(service)
    return AuditVerdict(
        intact=verdict.broken_at is None,
        events=verdict.events,
        head=verdict.head,
        broken_at=verdict.broken_at,
    )
