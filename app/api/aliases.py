"""Aliases: movable names for versions."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response

from app.api.deps import IfMatch, MaybeOnceDep, MemoryDep, Reader, ServiceDep, Trainer
from app.api.etags import Rendered, answer, body_tag, etag, reading
from app.api.problems import problems
from app.errors import (
    AliasProtected,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Purged,
    SubjectRestricted,
    ValidationFailed,
    VersionNotReady,
    VersionTainted,
)
from app.ids import ModelId
from app.schemas.aliases import AliasHistory, AliasList, AliasMoveRead, AliasPut, AliasRead, Rollback
from app.schemas.times import Instant
from app.schemas.updates import ALIAS
from app.services.models import aliases

router = APIRouter(prefix="/models/{model}/aliases", tags=["aliases"])

AnyAlias = Annotated[str, Path(pattern=ALIAS, description="An alias, or `latest`.")]
OwnAlias = Annotated[str, Path(description="An alias; `latest` is computed and cannot be set.")]
MOVES = problems(
    NotFound,
    Purged,
    ValidationFailed,
    AliasProtected,
    VersionTainted,
    VersionNotReady,
    SubjectRestricted,
    PreconditionFailed,
    PreconditionRequired,
)


@router.get("", operation_id="aliases_list", responses=problems(NotFound, Purged))
def browse(model: ModelId, caller: Reader, service: ServiceDep) -> AliasList:
    """The aliases of a model and what they name; `latest` is the newest version without erased rows."""
    return AliasList(items=aliases.browse(service, caller.tenant_id, model))


@router.get(
    "/{alias}",
    operation_id="aliases_get",
    responses=problems(NotFound, Purged, ValidationFailed),
    response_model=AliasRead,
)
async def read(
    model: ModelId, alias: AnyAlias, request: Request, caller: Reader, service: ServiceDep, memory: MemoryDep
) -> Response:
    """What an alias names now."""

    def render() -> Rendered:
        found = aliases.read(service, caller.tenant_id, model, alias)
        body = found.model_dump_json().encode()
        return Rendered(body, body_tag(body) if found.computed else etag(found.revision))

    key = ("alias", caller.tenant_id, model, alias)
    found = memory.peek(key) or await to_thread.run_sync(memory.get, key, render)
    return answer(request, found)


@router.put("/{alias}", operation_id="aliases_put", responses=MOVES)
def put(
    model: ModelId,
    alias: OwnAlias,
    body: AliasPut,
    caller: Trainer,
    service: ServiceDep,
    response: Response,
    if_match: IfMatch = None,
) -> AliasRead:
    """Make an alias, or move it: an existing one only with the ETag that was read."""
    moved = aliases.put(service, caller, model, alias, body, reading(if_match))
    response.headers["ETag"] = etag(moved.revision)
    return moved


@router.delete("/{alias}", status_code=204, operation_id="aliases_delete", responses=MOVES)
def remove(
    model: ModelId, alias: OwnAlias, caller: Trainer, service: ServiceDep, if_match: IfMatch = None
) -> None:
    """Take an alias away; its history stays."""
    aliases.remove(service, caller, model, alias, reading(if_match))


@router.get(
    "/{alias}/history", operation_id="aliases_history", responses=problems(NotFound, Purged, ValidationFailed)
)
def history(
    model: ModelId,
    alias: OwnAlias,
    caller: Reader,
    service: ServiceDep,
    as_of: Annotated[Instant | None, Query(description="Only what was live at this instant.")] = None,
) -> AliasHistory:
    """Every move of an alias, newest first; with `as_of` the one in force then."""
    moves: list[AliasMoveRead] = aliases.moves(service, caller.tenant_id, model, alias, as_of)
    return AliasHistory(items=moves)


@router.post("/{alias}/rollback", operation_id="aliases_rollback", responses=MOVES)
def rollback(
    model: ModelId,
    alias: OwnAlias,
    body: Rollback,
    caller: Trainer,
    service: ServiceDep,
    once: MaybeOnceDep,
    response: Response,
    if_match: IfMatch = None,
) -> AliasRead:
    """Move an alias back to the version that it named before."""
    moved = aliases.rollback(service, caller, model, alias, body.reason, reading(if_match), once)
    response.headers["ETag"] = etag(moved.revision)
    return moved
