"""The full rebuild of what replaced the erased: a job behind the answer, never a stage of a request.

It waits a little before it begins, so that the purge is over and requests that follow can join it: what they
share is rebuilt once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.services import jobs
from app.services.certificates.gathered import replacement, version_items
from app.services.erasure import evidence
from app.services.erasure.parts import parts
from app.tables import ForgetRequest, Job

LINES = "rebuilds"  # in a request's evidence
REQUESTS = "forget_requests"  # in a job's request
WAIT_SECONDS = 10.0  # from the first request on


def queue(session: Session, requests: Iterable[ForgetRequest]) -> list[Job]:
    """See to it that the replacing versions of requests are rebuilt: by the job of the tenant that waits, or
    by a new one. Gives those that were made; the sweep rings for them when they are due."""
    touched: dict[UUID, list[UUID]] = defaultdict(list)
    found = {request.id: request for request in requests}
    for id, versions in replacements(session, found.values()).items():
        if versions:
            touched[found[id].tenant_id].append(id)
    made = (_queue(session, tenant_id, touched[tenant_id]) for tenant_id in sorted(touched))
    return [job for job in made if job is not None]


def _queue(session: Session, tenant_id: UUID, request_ids: Sequence[UUID]) -> Job | None:
    waiting = session.scalars(
        select(Job)
        .filter_by(tenant_id=tenant_id, kind="verify", state=jobs.State.QUEUED)
        .order_by(Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    named = [id.hex for id in request_ids]
    if waiting is not None:
        waiting.request = {REQUESTS: list(dict.fromkeys([*waiting.request[REQUESTS], *named]))}
        return None
    job = jobs.new_job(
        session,
        tenant_id=tenant_id,
        kind="verify",
        queue="cpu",
        lane=None,
        urgency=jobs.Urgency.OFF_LANE,
        model_id=None,
        resource_id=request_ids[0],
        request={REQUESTS: named},
        actor="service",
        request_id=None,
    )
    job.not_before += timedelta(seconds=WAIT_SECONDS)
    return job


def replacements(session: Session, requests: Iterable[ForgetRequest]) -> dict[UUID, list[UUID]]:
    """For each request the versions that replaced what it touched."""
    return {
        id: [version for item in items if (version := replacement(item)) is not None]
        for id, items in version_items(session, requests).items()
    }


def pending(session: Session, request_ids: Iterable[UUID]) -> dict[UUID, list[UUID]]:
    """Versions that a request among these waits to hear of, and the requests that do."""
    requests = {
        row.id: row
        for part in parts(request_ids)
        for row in session.scalars(select(ForgetRequest).where(ForgetRequest.id.in_(part)))
    }
    found: dict[UUID, list[UUID]] = defaultdict(list)
    for id, versions in replacements(session, requests.values()).items():
        for version_id in versions:
            if not _told(requests[id], version_id):
                found[version_id].append(id)
    return dict(found)


def tell(
    session: Session, request_ids: Collection[UUID], version_id: UUID, line: Mapping[str, Any]
) -> list[UUID]:
    """Add what a rebuild came to, to the evidence of these requests of the version; gives those that had not
    heard of it."""
    dated, told = {**line, "at": clock(session).isoformat()}, []
    for part in parts(sorted(request_ids)):
        for request in evidence.held(session, part):
            if _told(request, version_id):
                continue
            request.evidence = {**request.evidence, LINES: [*request.evidence.get(LINES, []), dated]}
            request.revision = (request.revision or 0) + 1
            told.append(request.id)
    return told


def _told(request: ForgetRequest, version_id: UUID) -> bool:
    name = ids.encode("ver", version_id)
    return any(line["version"] == name for line in request.evidence.get(LINES, []))
