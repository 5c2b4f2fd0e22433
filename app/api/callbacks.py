"""What was told to a request's callback, and telling it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.deps import Allowed, ServiceDep
from app.api.problems import problems
from app.errors import NotFound
from app.ids import DeliveryId, ForgetId
from app.schemas.deliveries import DeliveryList, DeliveryRead
from app.service import Caller
from app.services.callbacks import deliveries

router = APIRouter(tags=["forget requests"])

Either = Annotated[Caller, Depends(Allowed("forget:create", "forget:approve"))]


@router.get(
    "/forget-requests/{forget_request}/deliveries",
    operation_id="forget_requests_deliveries",
    responses=problems(NotFound),
)
def browse(forget_request: ForgetId, caller: Either, service: ServiceDep) -> DeliveryList:
    """Every message to the request's callback, and what became of it."""
    return DeliveryList(items=deliveries.browse(service, caller.tenant_id, forget_request))


@router.post(
    "/deliveries/{delivery}/replay",
    status_code=202,
    operation_id="deliveries_replay",
    responses=problems(NotFound),
)
def replay(delivery: DeliveryId, caller: Either, service: ServiceDep) -> DeliveryRead:
    """Send a message again, under an id of its own."""
    return deliveries.replay(service, caller, delivery)
