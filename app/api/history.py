"""The history of a model: decisions of its update policy, moves of its aliases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.deps import Reader, ServiceDep
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import NotFound, Purged, ValidationFailed
from app.ids import ModelId
from app.schemas.policies import Event, HistoryRead
from app.services.policies import history

router = APIRouter(prefix="/models/{model}/history", tags=["models"])


@router.get("", operation_id="models_history", responses=problems(NotFound, Purged, ValidationFailed))
def browse(
    model: ModelId,
    caller: Reader,
    service: ServiceDep,
    paging: PagingDep,
    response: Response,
    event: Annotated[Event | None, Query(description="Only lines of this event.")] = None,
) -> PageOf[HistoryRead]:
    """What the update policy decided and where aliases went, oldest first."""
    found = history.browse(service, caller.tenant_id, model, paging.place(), event)
    return paging.answer(found, lambda line: line, response)
