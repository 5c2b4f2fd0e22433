"""Versions: list, read, lineage, centroids."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Request, Response

from app.api.deps import MemoryDep, Reader, ServiceDep
from app.api.etags import Rendered, answer, body_tag
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import ArtifactCorrupt, NotFound, Purged, VersionNotReady
from app.ids import ModelId
from app.schemas.base import VersionNumber
from app.schemas.versions import CentroidList, LineageRead, VersionRead, VersionSummary
from app.services.models import centroids, versions

router = APIRouter(prefix="/models/{model}/versions", tags=["versions"])

NPZ = "application/x-npz"
Number = Annotated[VersionNumber, Path(description="The number of a version.")]


@router.get("", operation_id="versions_list", responses=problems(NotFound, Purged))
def browse(
    model: ModelId, caller: Reader, service: ServiceDep, paging: PagingDep, response: Response
) -> PageOf[VersionSummary]:
    """The versions of a model by number; of purged ones only that they were."""
    found = versions.browse(service, caller.tenant_id, model, paging.number())
    return paging.answer(found, lambda version: version, response, by="number")


@router.get(
    "/{number}",
    operation_id="versions_get",
    responses=problems(NotFound, Purged, ArtifactCorrupt),
    response_model=VersionRead,
)
async def read(
    model: ModelId, number: Number, request: Request, caller: Reader, service: ServiceDep, memory: MemoryDep
) -> Response:
    """One version: method, classes, datasets by role, metrics and digests."""

    def render() -> Rendered:
        body = versions.read_one(service, caller.tenant_id, model, number).model_dump_json().encode()
        return Rendered(body, body_tag(body))

    key = ("version", caller.tenant_id, model, number)
    found = memory.peek(key) or await to_thread.run_sync(memory.get, key, render)
    return answer(request, found)


@router.get("/{number}/lineage", operation_id="versions_lineage", responses=problems(NotFound, Purged))
def lineage(model: ModelId, number: Number, caller: Reader, service: ServiceDep) -> LineageRead:
    """Where a version comes from, what came of it, and the datasets it stands on."""
    return versions.lineage_of(service, caller.tenant_id, model, number)


@router.get(
    "/{number}/centroids",
    operation_id="versions_centroids",
    responses={
        **problems(NotFound, Purged, VersionNotReady, ArtifactCorrupt),
        200: {"content": {NPZ: {"schema": {"type": "string", "format": "binary"}}}},
    },
    response_model=CentroidList,
)
def show_centroids(
    model: ModelId,
    number: Number,
    caller: Reader,
    service: ServiceDep,
    accept: Annotated[str | None, Header(description=f"`{NPZ}` for arrays; for all else, JSON.")] = None,
) -> Response:
    """Mean feature vector and rows of each class; small classes without the vector, except to `admin`."""
    found = centroids.of_version(service, caller.tenant_id, model, number, show_all="admin" in caller.scopes)
    if accept and NPZ in accept.lower():
        return Response(centroids.as_npz(found), media_type=NPZ)
    return Response(found.model_dump_json(), media_type="application/json")
