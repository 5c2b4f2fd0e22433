"""Where a request is. Whoever closes a job says so here, in its transaction, and the state follows.

The state is that of the least advanced model; a failed model makes the request `failed`, whatever the others
do; when all are done the tenant's purge is queued. Duplicates go where the request that they joined goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.services.callbacks import messages
from app.services.callers import audit
from app.services.jobs.rows import State, Urgency, new_job
from app.tables import ForgetItem, ForgetRequest, Job

STAGES = ("received", "awaiting-approval", "locating", "unlearning", "verifying", "publishing", "purging")
WORKED_ON = (
    "locating",
    "unlearning",
    "verifying",
    "publishing",
)  # what a model's item goes through, then done
ENDED = ("completed", "completed-with-exceptions", "rejected", "cancelled")
SYSTEM = "system"


def held(request: ForgetRequest, now: datetime) -> bool:
    """Whether a legal hold suspends the erasure now."""
    if request.hold is None:
        return False
    until = request.hold.get("until")
    return until is None or datetime.fromisoformat(until) > now


def move(request: ForgetRequest, state: str, now: datetime) -> None:
    """Put a request into a state and note when: of the stage that it leaves, and of the one that begins."""
    if request.state == state and state in request.stages:
        return
    at = now.isoformat()
    stages = {name: dict(times) for name, times in request.stages.items()}
    if request.state in stages:
        stages[request.state]["finished_at"] = at
    if state in STAGES:
        begun = stages.get(state, {}).get("started_at", at)
        stages[state] = {"started_at": begun, "finished_at": None}
    request.stages, request.state = stages, state
    request.finished_at = now if state in ENDED else None
    request.revision = (request.revision or 0) + 1


def lock(session: Session, ids: Iterable[UUID]) -> list[ForgetRequest]:
    """These requests, held until the transaction ends, in one order for everybody."""
    query = select(ForgetRequest).where(ForgetRequest.id.in_(sorted(set(ids)))).order_by(ForgetRequest.id)
    return list(session.scalars(query.with_for_update().execution_options(populate_existing=True)))


def take(session: Session, model_id: UUID, job_id: UUID) -> list[ForgetRequest]:
    """The requests that a forget job of this model works on, at its claim: approved, not held, not done here.

    From here on they cannot be cancelled. One whose job failed before is among them: whatever is made of the
    model now has to be without its rows too.
    """
    waiting = _items(model_id).where(ForgetItem.state != "done")
    taken = []
    requests = {row.id: row for row in lock(session, [row.request_id for row in session.scalars(waiting)])}
    now = clock(session)
    for item in session.scalars(waiting.execution_options(populate_existing=True)):
        request = requests.get(item.request_id)
        if request is None or request.state in ENDED or request.sequence is None or held(request, now):
            continue
        item.state, item.job_id = "unlearning", job_id
        taken.append(request)
    session.flush()
    for request in taken:
        recompute(session, request, now)
    return sorted(taken, key=lambda one: one.sequence or 0)


def enter(session: Session, request_ids: Collection[UUID], model_id: UUID, stage: str) -> None:
    """Say that the job of a model is at a stage: `verifying` or `publishing`."""
    assert stage in WORKED_ON
    _set(session, request_ids, model_id, stage, {})


def model_done(
    session: Session, model_id: UUID, request_ids: Collection[UUID], detail: Mapping[str, Any]
) -> Job | None:
    """Say that a model's versions no longer know the requests' rows; the purge job where one was queued.

    `detail` is kept with the model's item. The caller rings after its commit.
    """
    requests = _set(session, request_ids, model_id, "done", detail)
    tenants = {row.tenant_id for row in requests if row.state == "purging"}
    return queue_purge(session, tenants.pop()) if tenants else None


def model_failed(session: Session, job: Job) -> None:
    """Say that a forget job failed for good: each request that it was for is `failed` until `retry`."""
    mine = select(ForgetItem).where(ForgetItem.kind == "model", ForgetItem.job_id == job.id)
    requests = lock(session, [row.request_id for row in session.scalars(mine)])
    failed = set()
    for item in session.scalars(mine.execution_options(populate_existing=True)):
        if item.state not in ("done", "failed"):  # one that lacks rows has said so
            item.detail = {**item.detail, "failed_at": item.state, "cause": (job.error or {}).get("cause")}
            item.state = "failed"
            failed.add(item.request_id)
    session.flush()
    for request in requests:
        if request.id in failed and request.state not in ENDED:
            recompute(session, request)
            for one in (request, *_joined(session, request)):
                tell(session, one, "forget.failed", SYSTEM)


def complete(session: Session, request: ForgetRequest, exceptions: Sequence[Mapping[str, Any]] = ()) -> None:
    """Close a request whose purge is done, with what could not be done."""
    request.exceptions = [*request.exceptions, *(dict(one) for one in exceptions)]
    state = "completed-with-exceptions" if request.exceptions else "completed"
    move(request, state, clock(session))
    tell(session, request, "forget.completed", SYSTEM)


def recompute(session: Session, request: ForgetRequest, now: datetime | None = None) -> None:
    """Put an approved request, and those that joined it, where its models are; the caller holds its row."""
    now = now or clock(session)
    state = _state(session, request, now)
    move(request, state, now)
    session.flush()
    for other in _joined(session, request):
        if other.sequence is None and request.sequence is not None:
            tell(session, other, "forget.approved", request.decider or SYSTEM)
        other.sequence = request.sequence
        move(other, state, now)
    session.flush()


def queue_purge(session: Session, tenant_id: UUID) -> Job | None:
    """A job that purges what every request of the tenant in `purging` leaves; none where one waits."""
    waiting = select(Job).where(
        Job.tenant_id == tenant_id, Job.kind == "purge", Job.state == State.QUEUED, Job.lane == tenant_id
    )
    if session.scalars(waiting.with_for_update()).first() is not None:  # held: it starts after this commit
        return None
    return new_job(
        session,
        tenant_id=tenant_id,
        kind="purge",
        queue="io",
        lane=tenant_id,  # one at a time, each taking all that is there when it starts
        urgency=Urgency.ERASURE,
        model_id=None,
        resource_id=None,
        request={"erasure": tenant_id.hex},
        actor=SYSTEM,
        request_id=None,
    )


def tell(session: Session, request: ForgetRequest, action: str, actor: str) -> None:
    """Add a step of a request to the audit chain, and tell its callback where that is told."""
    audit.record(
        session,
        tenant_id=request.tenant_id,
        actor=actor,
        action=action,
        resources={"forget_request": request.id},
    )
    messages.emit(session, request, action)


def _state(session: Session, request: ForgetRequest, now: datetime) -> str:
    items = session.scalars(
        select(ForgetItem.state).where(ForgetItem.request_id == request.id, ForgetItem.kind == "model")
    ).all()
    if "failed" in items:
        return "failed"
    open_ones = [state for state in items if state != "done"]
    if open_ones:
        return min(open_ones, key=WORKED_ON.index)
    return "locating" if held(request, now) else "purging"


def _joined(session: Session, request: ForgetRequest) -> list[ForgetRequest]:
    """The open requests that joined this one."""
    joined = select(ForgetRequest).where(ForgetRequest.duplicate_of == request.id).order_by(ForgetRequest.id)
    found = session.scalars(joined.with_for_update().execution_options(populate_existing=True))
    return [row for row in found if row.state not in ENDED]


def _set(
    session: Session, request_ids: Collection[UUID], model_id: UUID, state: str, detail: Mapping[str, Any]
) -> list[ForgetRequest]:
    requests = lock(session, request_ids)
    items = _items(model_id).where(ForgetItem.request_id.in_(sorted(set(request_ids))))
    for item in session.scalars(items.execution_options(populate_existing=True)):
        item.state = state
        if detail:
            item.detail = {**item.detail, **detail}
    session.flush()
    for request in requests:
        if request.state not in ENDED:
            recompute(session, request)
    return requests


def _items(model_id: UUID) -> Any:
    return (
        select(ForgetItem)
        .where(ForgetItem.kind == "model", ForgetItem.resource_id == model_id)
        .order_by(ForgetItem.request_id)
    )
