"""Taking a request in: whom it names as digests, what it restricts, when it is due, whom it joins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app import ids, methods
from app.db import clock, touch
from app.errors import ValidationFailed
from app.methods.base import Kind
from app.schemas.forget import ForgetCreate, ForgetRead
from app.service import Caller, Service
from app.services.callers.idempotency import Once
from app.services.erasure import entries
from app.services.forget import approve, callback, due, joins, reads, states, targets
from app.tables import ForgetRequest, ForgetTarget, Job, RestrictedRow

AT_ONCE = 10_000  # rows of one insert
WAYS = ("auto", "exact", "retrain")  # methods of forgetting that are none of the registry


def submit(service: Service, caller: Caller, body: ForgetCreate, once: Once) -> ForgetRead:
    """Check a request, restrict what it names; approve it where the caller may and one person is enough.

    The answer is the request as it was received: the same whether anything is stored of whom it names.
    """
    named = targets.digested(service, caller.tenant_id, body)
    once = replace(once, fingerprint=targets.fingerprint(service, caller.tenant_id, body, named))
    _check_method(body)
    secret = callback.checked(service, body.callback)
    with service.db.begin() as session:
        once.begin(session)
        entries.lock(session)
        now = clock(session)
        request = _row(service, caller, body, named, now)
        targets.check(session, caller.tenant_id, body)
        request.callback_key_id = callback.keep(service, secret)
        plain = sorted({target for person in named for target in person})
        joined = joins.find(session, request, plain)
        request.duplicate_of = joined.id if joined else None
        answer = reads.received(request, now)
        states.move(request, "awaiting-approval", now)
        session.add(request)
        session.flush()
        _insert(session, ForgetTarget, _targets(request, named))
        queued = _receive(service, session, caller, request, plain, joined)
        once.finish(
            session,
            status=202,
            body=answer.model_dump(mode="json"),
            headers=reads.location(request),
            resource_id=request.id,
        )
    ring(service, queued)
    return answer


def ring(service: Service, queued: Iterable[Job]) -> None:
    """Wake workers, after the commit."""
    for job in queued:
        service.bell.ring(job.id, job.queue)


def _receive(
    service: Service,
    session: Session,
    caller: Caller,
    request: ForgetRequest,
    plain: list[str],
    joined: ForgetRequest | None,
) -> list[Job]:
    states.tell(session, request, "forget.received", caller.actor)
    automatic = caller.may("forget:approve") and not service.settings.forget.two_person
    if joined is not None:
        return _join(service, session, caller, request, joined, automatic)
    if automatic:  # no restriction that the same transaction would lift
        return approve.carry_out(service, session, request, caller.actor, plain)
    rows, _ = approve.reach(session, request, plain)
    request.evidence = {**request.evidence, **approve.counts(rows)}
    restricted = (
        {"dataset_id": id, "position": at, "request_id": request.id, "tenant_id": request.tenant_id}
        for id, positions in rows.items()
        for at in sorted(positions)
    )
    _insert(session, RestrictedRow, restricted)
    touch(session)
    return []


def _join(
    service: Service,
    session: Session,
    caller: Caller,
    request: ForgetRequest,
    joined: ForgetRequest,
    automatic: bool,
) -> list[Job]:
    """Follow an open request for the same; an approval that this one brings is the other's too."""
    request.evidence = {**joined.evidence, "persons": request.persons}
    session.flush()
    if joined.state == "awaiting-approval":
        if not automatic:
            return []
        queued = approve.carry_out(service, session, joined, caller.actor)
        joins.hurry(session, joined, request.created_at)
        return queued
    request.sequence, request.decider = joined.sequence, joined.decider
    states.move(request, joined.state, request.created_at)
    states.tell(session, request, "forget.approved", caller.actor)
    joins.hurry(session, joined, request.created_at)
    if joined.state != "purging":
        return []
    purge = states.queue_purge(session, request.tenant_id)  # the one that runs has begun without it
    return [purge] if purge else []


def _row(
    service: Service, caller: Caller, body: ForgetCreate, named: targets.Named, now: datetime
) -> ForgetRequest:
    submitted_at = body.submitted_at or now
    zone = service.settings.forget.time_zone
    return ForgetRequest(
        id=ids.new(),
        created_at=now,
        tenant_id=caller.tenant_id,
        scope=body.scope,
        persons=len(named),
        shared_rows=body.shared_rows,
        models=None if body.models is None else sorted(id.hex for id in body.models),
        method=body.method.model_dump(mode="json"),
        accept=body.accept,
        regulation=body.regulation,
        external_id=body.external_id,
        submitted_at=submitted_at,
        due_at=body.due_at or due.by_law(body.regulation, submitted_at, zone),
        rows_id=body.rows,
        callback_url=body.callback and body.callback.url,
        state="received",
        creator=caller.actor,
        stages={"received": {"started_at": now.isoformat(), "finished_at": None}},
        evidence={"persons": len(named)},
        exceptions=[],
        reminders=[],
        revision=1,
    )


def _check_method(body: ForgetCreate) -> None:
    name, params = body.method.name, body.method.params
    method = methods.BY_NAME.get(name)
    if name not in WAYS and (method is None or method.kind is not Kind.FORGET):
        known = [*WAYS, *(one.name for one in methods.ALL if one.kind is Kind.FORGET)]
        raise ValidationFailed(
            f"there is no such method of forgetting; choose one of {', '.join(known)}", pointer="/method/name"
        )
    if name in WAYS and params:
        raise ValidationFailed(f"{name} has no parameters", pointer="/method/params")


def _targets(request: ForgetRequest, named: targets.Named) -> Iterable[dict[str, Any]]:
    for person, entry in enumerate(named):
        for target in entry:
            yield {
                "request_id": request.id,
                "person": person,
                "target": target,
                "tenant_id": request.tenant_id,
            }


def _insert(session: Session, table: Any, values: Iterable[dict[str, Any]]) -> None:
    rows = list(values)
    for at in range(0, len(rows), AT_ONCE):
        session.connection().execute(insert(table), rows[at : at + AT_ONCE])
