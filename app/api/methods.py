"""The catalogue of methods, straight from the registry."""

from __future__ import annotations

from fastapi import APIRouter

from app import methods
from app.api.deps import Reader
from app.api.problems import problems
from app.schemas.methods import MethodList, MethodRead

router = APIRouter(prefix="/methods", tags=["catalogue"])


@router.get("", operation_id="methods_list", responses=problems())
async def browse(caller: Reader) -> MethodList:
    """Every method: what it is for, what it needs, its parameters."""
    return MethodList(items=[MethodRead.of(method) for method in methods.ALL])
