"""Forget requests: ask, look, decide. Every look is audited."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.api.deps import Allowed, MaybeOnceDep, ServiceDep, UploadOnceDep
from app.api.etags import Rendered, answer, etag
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import (
    ApprovalRequired,
    DeadlinePassed,
    IdempotencyMismatch,
    MissingIdempotencyKey,
    NotFound,
    RequestStateConflict,
    ValidationFailed,
)
from app.ids import ForgetId, ModelId
from app.schemas.base import Text
from app.schemas.forget import (
    Cancellation,
    Decision,
    Extension,
    ForgetCreate,
    ForgetRead,
    ForgetSummary,
    Hold,
    RequestState,
    Retry,
)
from app.schemas.times import Instant
from app.service import Caller
from app.services.forget import decisions, reads, submit

Party = Annotated[Caller, Depends(Allowed("forget:create", "forget:approve"))]
Creator = Annotated[Caller, Depends(Allowed("forget:create"))]
Approver = Annotated[Caller, Depends(Allowed("forget:approve"))]
DECIDED = problems(NotFound, RequestStateConflict, IdempotencyMismatch, ValidationFailed)

router = APIRouter(prefix="/forget-requests", tags=["forget requests"])


@router.post(
    "",
    status_code=202,
    operation_id="forget_requests_create",
    responses=problems(
        MissingIdempotencyKey, IdempotencyMismatch, NotFound, ValidationFailed, DeadlinePassed
    ),
)
def create(
    body: ForgetCreate, caller: Creator, service: ServiceDep, once: UploadOnceDep, response: Response
) -> ForgetRead:
    """Ask to erase persons, samples or classes. What is named is restricted from now on; where the caller may
    approve and one person is enough, it is erased.

    The answer is the request as it was received, without items and evidence: it is the same whether anything
    is stored of whom it names. What was found and done is read at `Location`.
    """
    return _accepted(submit.submit(service, caller, body, once), response)


@router.get("", operation_id="forget_requests_list", responses=problems(ValidationFailed))
def browse(
    caller: Party,
    service: ServiceDep,
    paging: PagingDep,
    response: Response,
    state: Annotated[RequestState | None, Query(description="Only requests in this state.")] = None,
    model: Annotated[
        ModelId | None, Query(description="Only requests that touch or name this model.")
    ] = None,
    external_id: Annotated[Text | None, Query(description="Only requests of this name.")] = None,
    created_after: Annotated[Instant | None, Query(description="Only younger requests.")] = None,
) -> PageOf[ForgetSummary]:
    """The forget requests of this tenant, oldest first."""
    filters = reads.Filters(state, model, external_id, created_after)
    found = reads.browse(service, caller, paging.place(), filters)
    return paging.answer(found, reads.summary, response)


@router.get(
    "/{forget_request}",
    operation_id="forget_requests_get",
    responses=problems(NotFound),
    response_model=ForgetRead,
)
def read(forget_request: ForgetId, request: Request, caller: Party, service: ServiceDep) -> Response:
    """One forget request: its stages, what it touches, when it is due."""
    found = reads.look(service, caller, forget_request)
    return answer(request, Rendered(found.model_dump_json().encode(), _tag(found)))


@router.post(
    "/{forget_request}/approve",
    status_code=202,
    operation_id="forget_requests_approve",
    responses=problems(NotFound, RequestStateConflict, ApprovalRequired, IdempotencyMismatch),
)
def approve(
    forget_request: ForgetId,
    caller: Approver,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
) -> ForgetRead:
    """Enter the erasure into the ledger and begin it."""
    return _accepted(decisions.approve_request(service, caller, forget_request, once), response)


@router.post("/{forget_request}/reject", operation_id="forget_requests_reject", responses=DECIDED)
def reject(
    forget_request: ForgetId,
    body: Decision,
    caller: Approver,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
) -> ForgetRead:
    """Refuse a request that waits for approval; its rows may be used again."""
    return _tagged(decisions.reject(service, caller, forget_request, body.reason, once), response)


@router.post("/{forget_request}/cancel", operation_id="forget_requests_cancel", responses=DECIDED)
def cancel(
    forget_request: ForgetId,
    caller: Party,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
    body: Cancellation | None = None,
) -> ForgetRead:
    """Withdraw a request before a job has taken it up. Once it is approved that needs scope forget:approve;
    before, scope forget:create is enough for requests that the same key made."""
    reason = body.reason if body else None
    return _tagged(decisions.cancel(service, caller, forget_request, reason, once), response)


@router.post("/{forget_request}/extend", operation_id="forget_requests_extend", responses=DECIDED)
def extend(
    forget_request: ForgetId,
    body: Extension,
    caller: Approver,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
) -> ForgetRead:
    """Put the due date off, once: by up to two months, of ccpa to 90 days."""
    return _tagged(decisions.extend(service, caller, forget_request, body, once), response)


@router.post("/{forget_request}/hold", operation_id="forget_requests_hold", responses=DECIDED)
def hold(
    forget_request: ForgetId,
    body: Hold,
    caller: Approver,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
) -> ForgetRead:
    """Suspend the erasure for a legal duty to keep; the rows stay restricted. It takes the place of a hold
    that is there; the reason is kept in the clear."""
    return _tagged(decisions.hold(service, caller, forget_request, body, once), response)


@router.post(
    "/{forget_request}/release",
    status_code=202,
    operation_id="forget_requests_release",
    responses=problems(NotFound, RequestStateConflict, IdempotencyMismatch),
)
def release(
    forget_request: ForgetId,
    caller: Approver,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
) -> ForgetRead:
    """End a legal hold; an approved erasure goes on."""
    return _accepted(decisions.release(service, caller, forget_request, once), response)


@router.post(
    "/{forget_request}/retry", status_code=202, operation_id="forget_requests_retry", responses=DECIDED
)
def retry(
    forget_request: ForgetId,
    caller: Party,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
    body: Retry | None = None,
) -> ForgetRead:
    """Try a failed request again: a new job for each model whose job failed. `withdraw` needs scope
    forget:approve."""
    return _accepted(decisions.retry(service, caller, forget_request, body or Retry(), once), response)


def _tag(found: ForgetRead) -> str:
    """Days pass without a revision, and are shown."""
    return etag(f"{found.revision}.{found.days_left}")


def _tagged(found: ForgetRead, response: Response) -> ForgetRead:
    response.headers["ETag"] = _tag(found)
    return found


def _accepted(found: ForgetRead, response: Response) -> ForgetRead:
    headers: dict[str, Any] = {"Location": found.links.self, "Retry-After": "2"}
    response.headers.update(headers)
    return _tagged(found, response)
