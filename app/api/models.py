"""Models: create, list, read, change, delete."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from app import ids
from app.api.deps import IfMatch, MaybeOnceDep, MemoryDep, Reader, ServiceDep, Trainer
from app.api.etags import Rendered, answer, etag, reading
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import (
    AliasProtected,
    DimensionMismatch,
    InUse,
    MissingData,
    NameConflict,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Purged,
    UnsupportedTask,
    ValidationFailed,
)
from app.ids import ModelId
from app.methods.base import Task
from app.schemas.base import Text
from app.schemas.jobs import JobRead
from app.schemas.models import ModelChange, ModelCreate, ModelRead
from app.services.models import models

router = APIRouter(prefix="/models", tags=["models"])


@router.post(
    "",
    status_code=201,
    operation_id="models_create",
    responses=problems(
        UnsupportedTask, ValidationFailed, NameConflict, DimensionMismatch, MissingData, NotFound, Purged
    ),
)
def create(
    body: ModelCreate, caller: Trainer, service: ServiceDep, once: MaybeOnceDep, response: Response
) -> ModelRead:
    """Make a model: a name, a task, the form of its inputs and the network that reads them."""
    made = models.create(service, caller, body, once)
    response.headers["Location"] = f"/v1/models/{ids.encode('mdl', made.id)}"
    response.headers["ETag"] = etag(made.revision)
    return made


@router.get("", operation_id="models_list", responses=problems(ValidationFailed))
def browse(
    caller: Reader,
    service: ServiceDep,
    paging: PagingDep,
    response: Response,
    task: Annotated[Task | None, Query(description="Only models of this task.")] = None,
    name: Annotated[Text | None, Query(description="Only the model of this name.")] = None,
) -> PageOf[ModelRead]:
    """The models of this tenant, oldest first."""
    found = models.browse(service, caller.tenant_id, paging.place(), task=task, name=name)
    return paging.answer(found, ModelRead.of, response)


@router.get(
    "/{model}", operation_id="models_get", responses=problems(NotFound, Purged), response_model=ModelRead
)
async def read(
    model: ModelId, request: Request, caller: Reader, service: ServiceDep, memory: MemoryDep
) -> Response:
    """One model."""

    def render() -> Rendered:
        found = models.read(service, caller.tenant_id, model)
        return Rendered(found.model_dump_json().encode(), etag(found.revision))

    key = ("model", caller.tenant_id, model)
    found = memory.peek(key) or await to_thread.run_sync(memory.get, key, render)
    return answer(request, found)


@router.patch(
    "/{model}",
    operation_id="models_change",
    responses=problems(
        NotFound,
        Purged,
        ValidationFailed,
        DimensionMismatch,
        UnsupportedTask,
        MissingData,
        AliasProtected,
        InUse,
        PreconditionFailed,
        PreconditionRequired,
    ),
)
def change(
    model: ModelId,
    body: ModelChange,
    caller: Trainer,
    service: ServiceDep,
    response: Response,
    if_match: IfMatch = None,
) -> ModelRead:
    """Change evaluation, gates, update policy, the least rows of a centroid, how many versions are kept or
    what answers for a tainted one; what is left out stays."""
    changed = models.change(service, caller, model, body, reading(if_match))
    response.headers["ETag"] = etag(changed.revision)
    return changed


@router.delete(
    "/{model}",
    status_code=202,
    operation_id="models_delete",
    responses=problems(NotFound, Purged, PreconditionFailed, PreconditionRequired),
)
def remove(
    model: ModelId, caller: Trainer, service: ServiceDep, response: Response, if_match: IfMatch = None
) -> JobRead:
    """Take a model out of service and destroy what its versions stored. Its name is free again."""
    job = models.remove(service, caller, model, reading(if_match))
    response.headers["Location"] = f"/v1/jobs/{ids.encode('job', job.id)}"
    response.headers["Retry-After"] = "2"
    return JobRead.of(job)
