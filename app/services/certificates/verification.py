"""The full rebuild of what replaced the erased: a job behind the answer, never a stage of a request.

Requests that are completed while such a job waits join it: what they share is rebuilt once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.services import jobs
from app.services.certificates.build import version_items
from app.tables import ForgetRequest, Job

LINES = "rebuilds"  # in a request's evidence


def queue(session: Session, request: ForgetRequest) -> Job | None:
    """See to it that a request's replacing versions are rebuilt; the job to ring for, where one was made."""
    if not replacements(session, request):
        return None
    waiting = session.scalars(
        select(Job)
        .filter_by(tenant_id=request.tenant_id, kind="verify", state=jobs.State.QUEUED)
        .order_by(Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if waiting is not None:
        waiting.request = {"forget_requests": [*waiting.request["forget_requests"], request.id.hex]}
        return None
    return jobs.new_job(
        session,
        tenant_id=request.tenant_id,
        kind="verify",
        queue="cpu",
        lane=None,
        urgency=jobs.Urgency.OFF_LANE,
        model_id=None,
        resource_id=request.id,
        request={"forget_requests": [request.id.hex]},
        actor="service",
        request_id=None,
    )


def replacements(session: Session, request: ForgetRequest) -> list[UUID]:
    """The versions that replaced what a request touched."""
    items = version_items(session, request)
    return [UUID(hex=item.detail["replacement_id"]) for item in items if item.detail.get("replacement_id")]


def pending(session: Session, request_ids: Iterable[UUID]) -> list[UUID]:
    """Versions that a request among these waits to hear of, each once."""
    found: dict[UUID, None] = {}
    for request_id in request_ids:
        request = session.get_one(ForgetRequest, request_id)
        found |= dict.fromkeys(id for id in replacements(session, request) if not _told(request, id))
    return list(found)


def tell(
    session: Session, request_ids: Iterable[UUID], version_id: UUID, line: Mapping[str, Any]
) -> list[UUID]:
    """Add what a rebuild came to, to the evidence of every request that the version is of; gives these."""
    dated, told = {**line, "at": clock(session).isoformat()}, []
    for request_id in sorted(request_ids):
        request = session.get_one(ForgetRequest, request_id, with_for_update=True, populate_existing=True)
        if _told(request, version_id) or version_id not in replacements(session, request):
            continue
        request.evidence = {**request.evidence, LINES: [*request.evidence.get(LINES, []), dated]}
        request.revision = (request.revision or 0) + 1
        told.append(request_id)
    return told


def _told(request: ForgetRequest, version_id: UUID) -> bool:
    name = ids.encode("ver", version_id)
    return any(line["version"] == name for line in request.evidence.get(LINES, []))
