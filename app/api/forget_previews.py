"""What a forget request would touch, before there is one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.deps import Allowed, ServiceDep
from app.api.problems import problems
from app.errors import NotFound, ValidationFailed
from app.schemas.forget import ForgetCreate
from app.schemas.forget_preview import ForgetPreview
from app.service import Caller
from app.services.forget import previews

router = APIRouter(prefix="/forget-requests/preview", tags=["forget requests"])


@router.post("", operation_id="forget_requests_preview", responses=problems(NotFound, ValidationFailed))
def preview(
    body: ForgetCreate, caller: Annotated[Caller, Depends(Allowed("forget:create"))], service: ServiceDep
) -> ForgetPreview:
    """Everything that the request with this body would touch, what that would cost, and what it would not
    reach. Nothing is stored of whom it names; that somebody looked is audited. A preview of a class opens the
    datasets that its model learned, and takes as long as that does."""
    return previews.preview(service, caller, body)
