"""What people decide about a request: approve, reject, cancel, extend, hold, release, retry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import ApprovalRequired, RequestStateConflict, ValidationFailed
from app.schemas.forget import Extension, ForgetRead, Hold, Retry
from app.service import Caller, Service
from app.services.callers.idempotency import Once
from app.services.datasets import sent_again
from app.services.erasure import entries
from app.services.forget import acts, approve, due, joins, lacking, reads, rights, states, targets
from app.services.forget.submit import ring
from app.tables import ForgetRequest, Job

Act = Callable[[Session, ForgetRequest], Sequence[Job]]


def approve_request(service: Service, caller: Caller, request_id: UUID, once: Once | None) -> ForgetRead:
    """Enter the erasure into the ledger and begin; raises `ApprovalRequired` where the creator may not."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect(request, "awaiting-approval")
        if service.settings.forget.two_person and request.creator == caller.actor:
            raise ApprovalRequired(
                "who made a request does not approve it: another key with forget:approve must"
            )
        queued = approve.carry_out(service, session, request, caller.actor)
        joins.hurry(session, request, clock(session))
        return queued

    return _decide(service, caller, request_id, once, act, status=202)


def reject(service: Service, caller: Caller, request_id: UUID, reason: str, once: Once | None) -> ForgetRead:
    """Refuse the erasure; its rows, and who joined it, are free again."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect(request, "awaiting-approval")
        if service.ledger.get(request.id, "approve") is not None:
            raise RequestStateConflict("the request was approved, which is about to show")
        ended = [request, *_joined(session, request)]
        for one in ended:
            one.decider = caller.actor
            acts.end(session, one, "rejected", reason, caller.actor)
        return _rows_away(session, ended)

    return _decide(service, caller, request_id, once, act)


def cancel(
    service: Service, caller: Caller, request_id: UUID, reason: str | None, once: Once | None
) -> ForgetRead:
    """Withdraw a request that no job has taken up; after approval that lifts its entry of the ledger."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect(request, "awaiting-approval", "locating", joined=True)
        rights.may_cancel(service, caller, request)
        _refuse_taken(session, request.duplicate_of or request.id)
        others = [reads.url(other.id) for other in _joined(session, request)]
        if others:
            raise RequestStateConflict(
                "other requests have joined this one: cancel them first", related=others
            )
        if request.duplicate_of is None:
            acts.take_back(service, session, request, caller.actor, reason)
        else:
            acts.end(session, request, "cancelled", reason, caller.actor)
        return _rows_away(session, [request])

    return _decide(service, caller, request_id, once, act)


def extend(
    service: Service, caller: Caller, request_id: UUID, body: Extension, once: Once | None
) -> ForgetRead:
    """Give a request more time, once, with a reason."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect_open(request)
        if request.extension is not None:
            raise RequestStateConflict("the request has been extended already")
        before, now = request.due_at, clock(session)
        request.due_at = due.extended(
            request.regulation, request.submitted_at, before, service.settings.forget.time_zone, body.months
        )
        request.extension = {
            "reason": body.reason,
            "at": now.isoformat(),
            "actor": caller.actor,
            "due_before": before.isoformat(),
        }
        request.reminders = []
        request.revision += 1
        states.tell(session, request, "forget.extended", caller.actor)
        return []

    return _decide(service, caller, request_id, once, act)


def hold(service: Service, caller: Caller, request_id: UUID, body: Hold, once: Once | None) -> ForgetRead:
    """Suspend the erasure for a legal duty, not the restriction; until a job has taken it up. It takes the
    place of a hold that is there."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect(request, "awaiting-approval", "locating")
        _refuse_taken(session, request.id)
        now = clock(session)
        if body.until is not None and body.until <= now:
            raise ValidationFailed("a hold ends in the future", pointer="/until")
        until = body.until.isoformat() if body.until else None
        request.hold = {"reason": body.reason, "until": until, "actor": caller.actor}
        request.revision += 1
        acts.leave_jobs(session, request, now)
        states.tell(session, request, "forget.held", caller.actor)
        return []

    return _decide(service, caller, request_id, once, act)


def release(service: Service, caller: Caller, request_id: UUID, once: Once | None) -> ForgetRead:
    """End a legal hold; what was approved goes on."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect(request, "awaiting-approval", "locating")
        if request.hold is None:
            raise RequestStateConflict("the request is not on hold")
        return acts.let_go(service, session, request, caller.actor)

    return _decide(service, caller, request_id, once, act, status=202)


def retry(service: Service, caller: Caller, request_id: UUID, body: Retry, once: Once | None) -> ForgetRead:
    """Queue a new job for each model whose job failed. Rows sent again take the place of those sent before;
    with `withdraw` versions that lack rows go without a replacement."""

    def act(session: Session, request: ForgetRequest) -> Sequence[Job]:
        _expect(request, "failed")
        if body.withdraw:
            rights.may_withdraw(caller)
        queued: list[Job] = []
        if body.rows is not None and body.rows != request.rows_id:
            targets.check_rows(session, caller.tenant_id, body.rows)
            before, request.rows_id = request.rows_id, body.rows
            away = sent_again.release(session, before, caller.actor)
            queued += [away] if away else []
        request.withdraw = request.withdraw or body.withdraw
        request.exceptions = lacking.without(request.exceptions)
        for item in acts.models_of(session, request.id):
            if item.state == "failed":
                item.detail = {}
                queued.append(
                    approve.queue_forget(
                        session,
                        request,
                        item.resource_id,
                        service.settings,
                        actor=caller.actor,
                        retry_of=item.job_id,
                    )
                )
        joins.hurry(session, request, clock(session))
        states.recompute(session, request)
        states.tell(session, request, "forget.retried", caller.actor)
        return queued

    return _decide(service, caller, request_id, once, act, status=202)


def _decide(
    service: Service, caller: Caller, request_id: UUID, once: Once | None, act: Act, status: int = 200
) -> ForgetRead:
    with service.db.begin() as session:
        if once:
            once.begin(session)
        entries.lock(session)
        request = acts.own(session, caller.tenant_id, request_id)
        queued = act(session, request)
        session.flush()
        answer = reads.read(session, request)
        if once:
            headers = reads.location(request) if status == 202 else {}
            body = answer.model_dump(mode="json")
            once.finish(session, status=status, body=body, headers=headers, resource_id=request.id)
    ring(service, queued)
    return answer


def _expect(request: ForgetRequest, *wanted: str, joined: bool = False) -> None:
    if request.duplicate_of is not None and not joined:
        raise RequestStateConflict(
            f"this request joined {ids.encode('fgt', request.duplicate_of)}: decide about that",
            related=[reads.url(request.duplicate_of)],
        )
    if request.state not in wanted:
        raise RequestStateConflict(
            f"the request is {request.state}; this can be asked of one that is {' or '.join(wanted)}"
        )


def _expect_open(request: ForgetRequest) -> None:
    if request.state in states.ENDED:
        raise RequestStateConflict(f"the request is {request.state}: nothing is due any more")


def _refuse_taken(session: Session, request_id: UUID) -> None:
    if acts.taken(session, request_id):
        raise RequestStateConflict("a job has taken the request up: it can no longer be stopped")


def _rows_away(session: Session, ended: Sequence[ForgetRequest]) -> list[Job]:
    """Have rows destroyed that were sent again for requests which ended."""
    jobs = [sent_again.release(session, id) for id in {one.rows_id for one in ended}]
    return [job for job in jobs if job is not None]


def _joined(session: Session, request: ForgetRequest) -> list[ForgetRequest]:
    found = session.scalars(select(ForgetRequest.id).where(ForgetRequest.duplicate_of == request.id)).all()
    return [other for other in states.lock(session, found) if other.state not in states.ENDED]
