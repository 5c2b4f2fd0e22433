"""Jobs: reading, waiting, following, cancelling, trying again."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from app.api.deps import FeedDep, MaybeOnceDep, MemoryDep, PreferWait, Reader, ServiceDep, Trainer
from app.api.etags import Rendered, answer, etag
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import (
    IdempotencyMismatch,
    InvalidRequest,
    JobNotCancellable,
    JobNotRetryable,
    NotFound,
    Purged,
    ValidationFailed,
)
from app.ids import JobId, ModelId
from app.schemas.jobs import JobKind, JobRead, JobState, LogLine
from app.schemas.times import Instant
from app.service import Service
from app.services.feed import Feed
from app.services.jobs import asked as job_wishes
from app.services.jobs import reads as job_reads
from app.services.jobs.asked import location
from app.services.memory import Memory
from app.tables import Job

PING_SECONDS = 15.0
RETRY_MILLISECONDS = 3000
NOT_BUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

EVENT = {
    "type": "string",
    "examples": ['event: progress\ndata: {"at": "2026-01-05T09:00:07+00:00", "fraction": 0.42}\nid: 17\n\n'],
}

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", operation_id="jobs_list", responses=problems(ValidationFailed))
def browse(
    caller: Reader,
    service: ServiceDep,
    paging: PagingDep,
    response: Response,
    state: Annotated[
        JobState | None, Query(description="Only jobs in this state; blocked ones are queued.")
    ] = None,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind.")] = None,
    model: Annotated[ModelId | None, Query(description="Only jobs on this model.")] = None,
    created_after: Annotated[Instant | None, Query(description="Only younger jobs.")] = None,
) -> PageOf[JobRead]:
    """The jobs of this tenant, oldest first."""
    filters = job_reads.Filters(state, kind, model, created_after)
    found = job_reads.browse(service, caller.tenant_id, paging.place(), filters)
    return paging.answer(found, lambda seen: JobRead.of(seen.job, seen.blocked_by), response)


@router.get("/{job}", operation_id="jobs_get", response_model=JobRead, responses=problems(NotFound))
async def read(
    request: Request,
    job: JobId,
    caller: Reader,
    service: ServiceDep,
    memory: MemoryDep,
    feed: FeedDep,
    wait: PreferWait,
) -> Response:
    """One job. With `Prefer: wait=N` the answer comes when it is done, or after N seconds."""
    found = await seen(service, memory, caller.tenant_id, job)
    if wait and not found.done:
        await feed.wait(job, wait)
        found = await seen(service, memory, caller.tenant_id, job)
    body = found.model_dump_json().encode()
    return answer(request, Rendered(body, etag(f"{zlib.crc32(body):08x}")), headers=applied(wait))


@router.post(
    "/{job}/cancel",
    status_code=202,
    operation_id="jobs_cancel",
    response_model=JobRead,
    responses=problems(NotFound, JobNotCancellable, IdempotencyMismatch),
)
def cancel(
    job: JobId, caller: Trainer, service: ServiceDep, once: MaybeOnceDep, response: Response
) -> JobRead:
    """Ask a job to stop: a queued one at once, a running one at its next safe point."""
    answered = job_wishes.cancel(service, caller, job, once)
    response.headers.update(location(job))
    return answered


@router.post(
    "/{job}/retry",
    status_code=202,
    operation_id="jobs_retry",
    response_model=JobRead,
    responses=problems(NotFound, JobNotRetryable, IdempotencyMismatch, Purged),
)
def retry(
    job: JobId, caller: Trainer, service: ServiceDep, once: MaybeOnceDep, response: Response
) -> JobRead:
    """Queue a new job that does what a failed or cancelled one was to do."""
    made = job_wishes.retry(service, caller, job, once)
    response.headers.update(location(made.id))
    return made


@router.get("/{job}/logs", operation_id="jobs_logs", responses=problems(NotFound))
def logs(
    job: JobId, caller: Reader, service: ServiceDep, paging: PagingDep, response: Response
) -> PageOf[LogLine]:
    """What the job wrote for its owner, in order."""
    found = job_reads.lines(service, caller.tenant_id, job, paging.number(), "log")
    return paging.answer(found, LogLine.of, response, by="sequence")


@router.get(
    "/{job}/events",
    operation_id="jobs_events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}, **problems(NotFound)},
)
async def events(
    job: JobId,
    caller: Reader,
    service: ServiceDep,
    memory: MemoryDep,
    feed: FeedDep,
    last_event_id: Annotated[
        str | None, Header(description="The last `id` that was read; the stream goes on behind it.")
    ] = None,
) -> Response:
    """The job's story as server-sent events: state, progress, log and, at the end, done."""
    await seen(service, memory, caller.tenant_id, job)
    stream = _stream(feed, job, _sequence(last_event_id))
    return EventSourceResponse(stream, headers=NOT_BUFFERED)


async def seen(service: Service, memory: Memory, tenant_id: UUID, job_id: UUID) -> JobRead:
    """A job as it is now. Whoever reads that it is done also reads here what it published."""
    found = await to_thread.run_sync(job_reads.read, service, tenant_id, job_id)
    memory.see(found.counter)
    return JobRead.of(found.job, found.blocked_by)


async def accepted(
    service: Service, memory: Memory, feed: Feed, tenant_id: UUID, job: Job, wait: float | None
) -> Response:
    """The 202 of a call that made a job, held back while the job runs where `Prefer: wait` asks for it."""
    shown = JobRead.of(job)
    if wait:
        await feed.wait(job.id, wait)
        shown = await seen(service, memory, tenant_id, job.id)
    headers = {**location(job.id), **applied(wait)}
    return Response(shown.model_dump_json(), 202, headers, media_type="application/json")


def applied(wait: float | None) -> dict[str, str]:
    """The header that says that `Prefer: wait` was honoured."""
    return {} if wait is None else {"Preference-Applied": f"wait={wait:.0f}"}


async def _stream(feed: Feed, job_id: UUID, after: int) -> AsyncIterator[bytes]:
    yield format_sse_event(comment="follow", retry=RETRY_MILLISECONDS)
    async for told in feed.follow(job_id, after, PING_SECONDS):
        if told is None:
            yield KEEPALIVE_COMMENT
        else:
            data = json.dumps({"at": told.created_at.isoformat(), **told.data})
            yield format_sse_event(data_str=data, event=told.event, id=str(told.sequence))


def _sequence(last_event_id: str | None) -> int:
    if not last_event_id:
        return 0
    if not last_event_id.isdecimal() or len(last_event_id) > 18:
        raise InvalidRequest("Last-Event-ID is an id of this stream", pointer="Last-Event-ID")
    return int(last_event_id)
