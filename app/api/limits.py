"""What a client may send, as this service is set."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.deps import Reader, ServiceDep
from app.api.problems import problems
from app.config import Limits

router = APIRouter(prefix="/limits", tags=["catalogue"])


@router.get("", operation_id="limits_get", responses=problems())
async def read(caller: Reader, service: ServiceDep) -> Limits:
    """Largest bodies, rows, classes and waits."""
    return service.settings.limits
