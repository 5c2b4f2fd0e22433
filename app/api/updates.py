"""Updates: new-class data for a model, answered with a job."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Response

from app.api.deps import FeedDep, MemoryDep, OnceDep, PreferWait, ServiceDep, Trainer
from app.api.jobs import accepted
from app.api.problems import problems
from app.errors import (
    AliasProtected,
    AlreadyUsed,
    ClassNameConflict,
    DimensionMismatch,
    IdempotencyMismatch,
    MissingData,
    MissingIdempotencyKey,
    NotFound,
    Purged,
    TooFewSamples,
    UnsupportedTask,
    ValidationFailed,
    VersionNotReady,
    VersionTainted,
)
from app.ids import ModelId
from app.schemas.jobs import JobRead
from app.schemas.updates import UpdateCreate
from app.services.models import updates

router = APIRouter(prefix="/models/{model}/updates", tags=["updates"])


@router.post(
    "",
    status_code=202,
    operation_id="updates_create",
    response_model=JobRead,
    responses=problems(
        MissingIdempotencyKey,
        IdempotencyMismatch,
        NotFound,
        Purged,
        ClassNameConflict,
        AlreadyUsed,
        MissingData,
        VersionTainted,
        VersionNotReady,
        AliasProtected,
        DimensionMismatch,
        TooFewSamples,
        UnsupportedTask,
        ValidationFailed,
    ),
)
async def create(
    model: ModelId,
    body: UpdateCreate,
    caller: Trainer,
    service: ServiceDep,
    memory: MemoryDep,
    feed: FeedDep,
    once: OnceDep,
    wait: PreferWait,
) -> Response:
    """Teach a model new rows, or make another head of what it knows: a job makes the next version."""
    job = await to_thread.run_sync(updates.submit, service, caller, model, body, once)
    return await accepted(service, memory, feed, caller.tenant_id, job, wait)
