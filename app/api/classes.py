"""Classes of a model."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.deps import Reader, ServiceDep
from app.api.problems import problems
from app.errors import NotFound, Purged
from app.ids import ClassId, ModelId
from app.schemas.models import ClassList, ClassRead
from app.services.models import classes

router = APIRouter(prefix="/models/{model}/classes", tags=["classes"])


@router.get("", operation_id="classes_list", responses=problems(NotFound, Purged))
def browse(model: ModelId, caller: Reader, service: ServiceDep) -> ClassList:
    """Every class that the model ever had; an id never changes its meaning."""
    return ClassList(items=classes.browse(service, caller.tenant_id, model))


@router.get("/{class_id}", operation_id="classes_get", responses=problems(NotFound, Purged))
def read(model: ModelId, class_id: ClassId, caller: Reader, service: ServiceDep) -> ClassRead:
    """One class, and the versions that know it."""
    return classes.read(service, caller.tenant_id, model, class_id)
