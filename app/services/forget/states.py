"""Where a request is. Whoever closes a job says so here, in its transaction, and the state follows.

The state is that of the least advanced model; a failed model makes the request `failed`, whatever the others
do; when all are done the tenant's purge is queued. Duplicates go where the request that they joined goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.db import clock
from app.services.callbacks import messages
from app.services.callers import audit
from app.services.erasure.parts import parts
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

Joined = dict[UUID | None, list[ForgetRequest]]  # requests by the one that they joined


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
    found: list[ForgetRequest] = []
    for part in parts(sorted(set(ids))):
        found += _held(session, ForgetRequest.id.in_(part))
    return found


def take(session: Session, model_id: UUID, job_id: UUID) -> list[ForgetRequest]:
    """The requests that a forget job of this model works on, at its claim: approved, not held, not done here.

    From here on they cannot be cancelled. One whose job failed before is among them: whatever is made of the
    model now has to be without its rows too.
    """
    waiting = _items(model_id).where(ForgetItem.state != "done")
    taken = []
    requests, joined = _lock_all(session, session.scalars(waiting.with_only_columns(ForgetItem.request_id)))
    now = clock(session)
    for item in session.scalars(waiting.execution_options(populate_existing=True)):
        request = requests.get(item.request_id)
        if request is None or request.state in ENDED or request.sequence is None or held(request, now):
            continue
        item.state, item.job_id = "unlearning", job_id
        taken.append(request)
    _follow(session, taken, joined, now)
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
    requests, joined = _lock_all(session, session.scalars(mine.with_only_columns(ForgetItem.request_id)))
    failed = set()
    for item in session.scalars(mine.execution_options(populate_existing=True)):
        if item.state not in ("done", "failed"):  # one that lacks rows has said so
            item.detail = {**item.detail, "failed_at": item.state, "cause": (job.error or {}).get("cause")}
            item.state = "failed"
            failed.add(item.request_id)
    told = [row for row in requests.values() if row.id in failed and row.state not in ENDED]
    _follow(session, told, joined, clock(session))
    for request in told:
        for one in (request, *joined.get(request.id, ())):
            tell(session, one, "forget.failed", SYSTEM)


def complete(session: Session, request: ForgetRequest, exceptions: Sequence[Mapping[str, Any]] = ()) -> None:
    """Close a request whose purge is done, with what could not be done."""
    request.exceptions = [*request.exceptions, *(dict(one) for one in exceptions)]
    state = "completed-with-exceptions" if request.exceptions else "completed"
    move(request, state, clock(session))
    tell(session, request, "forget.completed", SYSTEM)


def recompute(session: Session, request: ForgetRequest, now: datetime | None = None) -> None:
    """Put an approved request, and those that joined it, where its models are; the caller holds its row."""
    recompute_all(session, [request], now)


def recompute_all(session: Session, requests: Sequence[ForgetRequest], now: datetime | None = None) -> None:
    """`recompute` of many, in as many statements as of one; the caller holds their rows."""
    joined = _joined(session, [request.id for request in requests])
    _follow(session, requests, joined, now or clock(session))


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


def _follow(session: Session, requests: Sequence[ForgetRequest], joined: Joined, now: datetime) -> None:
    """Put requests, and those that joined them, where their models are; all these rows are held."""
    session.flush()
    items = _items_of(session, requests)
    for request in requests:
        state = _state(items.get(request.id, []), held(request, now))
        move(request, state, now)
        for other in joined.get(request.id, ()):
            if other.sequence is None and request.sequence is not None:
                tell(session, other, "forget.approved", request.decider or SYSTEM)
            other.sequence = request.sequence
            move(other, state, now)
    session.flush()


def _items_of(session: Session, requests: Iterable[ForgetRequest]) -> dict[UUID, list[str]]:
    """Where each request's models are."""
    found: dict[UUID, list[str]] = {}
    for part in parts([request.id for request in requests]):
        query = select(ForgetItem.request_id, ForgetItem.state).where(
            ForgetItem.request_id.in_(part), ForgetItem.kind == "model"
        )
        for request_id, state in session.execute(query):
            found.setdefault(request_id, []).append(state)
    return found


def _state(items: Collection[str], on_hold: bool) -> str:
    """Of a request whose models are there."""
    if "failed" in items:
        return "failed"
    open_ones = [state for state in items if state != "done"]
    if open_ones:
        return min(open_ones, key=WORKED_ON.index)
    return "locating" if on_hold else "purging"


def _held(session: Session, which: ColumnElement[bool]) -> Sequence[ForgetRequest]:
    query = select(ForgetRequest).where(which).order_by(ForgetRequest.id)
    return session.scalars(query.with_for_update().execution_options(populate_existing=True)).all()


def _lock_all(session: Session, ids: Iterable[UUID]) -> tuple[dict[UUID, ForgetRequest], Joined]:
    """These requests, and the open ones that joined them, all held; in the order of `lock`."""
    wanted = set(ids)
    held = lock(session, {*wanted, *_joining(session, wanted)})
    return {row.id: row for row in held if row.id in wanted}, _joined(session, wanted)


def _joined(session: Session, ids: Iterable[UUID]) -> Joined:
    """The open requests that joined these, whose rows the caller holds: none joins them meanwhile."""
    found: Joined = {}
    for part in parts(ids):
        for row in _held(session, ForgetRequest.duplicate_of.in_(part)):
            if row.state not in ENDED:
                found.setdefault(row.duplicate_of, []).append(row)
    return found


def _joining(session: Session, ids: Iterable[UUID]) -> Iterator[UUID]:
    for part in parts(ids):
        yield from session.scalars(select(ForgetRequest.id).where(ForgetRequest.duplicate_of.in_(part)))


def _set(
    session: Session, request_ids: Collection[UUID], model_id: UUID, state: str, detail: Mapping[str, Any]
) -> list[ForgetRequest]:
    requests, joined = _lock_all(session, request_ids)
    for part in parts(requests):
        items = _items(model_id).where(ForgetItem.request_id.in_(part))
        for item in session.scalars(items.execution_options(populate_existing=True)):
            item.state = state
            if detail:
                item.detail = {**item.detail, **detail}
    open_ones = [request for request in requests.values() if request.state not in ENDED]
    _follow(session, open_ones, joined, clock(session))
    return list(requests.values())


def _items(model_id: UUID) -> Any:
    return (
        select(ForgetItem)
        .where(ForgetItem.kind == "model", ForgetItem.resource_id == model_id)
        .order_by(ForgetItem.request_id)
    )
