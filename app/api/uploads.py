"""Uploads: weights of networks as safetensors, to be named by a model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool

from app import ids
from app.api.deps import Ingester, MaybeUploadOnceDep, Reader, ServiceDep
from app.api.problems import problems
from app.api.streams import fingerprinted, in_thread, receive
from app.errors import (
    BodyTooLarge,
    IdempotencyInProgress,
    IdempotencyMismatch,
    NotFound,
    StorageFull,
    UnsafeFormat,
    UnsupportedMedia,
    ValidationFailed,
)
from app.ids import UploadId
from app.intake.media import Format
from app.schemas.base import Name
from app.schemas.uploads import UploadRead
from app.services.callers.idempotency import reserved
from app.services.datasets import uploads

router = APIRouter(prefix="/uploads", tags=["uploads"])

MEDIA = "application/x-safetensors"


@router.post(
    "",
    status_code=201,
    operation_id="uploads_create",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {MEDIA: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses=problems(
        IdempotencyInProgress,
        IdempotencyMismatch,
        BodyTooLarge,
        UnsupportedMedia,
        UnsafeFormat,
        ValidationFailed,
        StorageFull,
    ),
)
async def create(
    request: Request,
    response: Response,
    caller: Ingester,
    service: ServiceDep,
    once: MaybeUploadOnceDep,
    name: Annotated[Name | None, Query(description="Name to show.")] = None,
) -> UploadRead:
    """Send a safetensors file of weights. Its header is checked; whether it fits, a model says."""
    once = await fingerprinted(request, service, once) if once else None
    key = contextmanager_in_threadpool(reserved(service, once)) if once else nullcontext()
    async with key as held:
        format, spooled = await receive(request, service)
        with spooled:
            if format is not Format.SAFETENSORS:
                raise UnsupportedMedia(f"Content-Type has to be {MEDIA}", pointer="Content-Type")
            if once and held and held.earlier is not None:
                row = await in_thread(uploads.answered, service, caller, held.earlier, once, spooled.sha256)
                response.headers["Idempotency-Replayed"] = "true"
            else:
                mine = held.once if held else None
                row = await in_thread(uploads.accept, service, caller, spooled, name or "", mine)
    response.headers["Location"] = f"/v1/uploads/{ids.encode('upl', row.id)}"
    return UploadRead.of(row)


@router.get("/{upload}", operation_id="uploads_get", responses=problems(NotFound))
def read(upload: UploadId, caller: Reader, service: ServiceDep) -> UploadRead:
    """One upload: its tensors by name."""
    return UploadRead.of(uploads.get(service, caller, upload))
