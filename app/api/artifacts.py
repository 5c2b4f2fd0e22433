"""Versions that leave and heads that come in."""

from __future__ import annotations

import hmac
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.api.body import read_body
from app.api.deps import MaybeUploadOnceDep, Reader, Recipient, ServiceDep, Trainer
from app.api.problems import problems
from app.errors import (
    ArtifactCorrupt,
    BodyTooLarge,
    ClassNameConflict,
    DimensionMismatch,
    HasVersions,
    IdempotencyMismatch,
    NonFinite,
    NotFound,
    Purged,
    SubjectRestricted,
    TooFewSamples,
    UnsafeFormat,
    UnsupportedMedia,
    ValidationFailed,
    VersionNotReady,
    VersionTainted,
)
from app.ids import ModelId
from app.schemas.base import VersionNumber
from app.schemas.versions import VersionRead
from app.services.callers.access import tenant_key
from app.services.models import artifacts, imports, versions

router = APIRouter(prefix="/models/{model}/versions", tags=["versions"])

ZIP = "application/zip"
BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{number}/artifact",
    operation_id="versions_artifact",
    response_class=StreamingResponse,
    responses={
        200: {"content": {ZIP: BINARY}, "description": "`version.json` and `version.safetensors`."},
        **problems(ArtifactCorrupt, NotFound, Purged, SubjectRestricted, VersionNotReady, VersionTainted),
    },
)
def artifact(
    model: ModelId,
    number: VersionNumber,
    caller: Reader,
    service: ServiceDep,
    recipient: Recipient = None,
) -> StreamingResponse:
    """Take a version out as a zip (`docs/artifact.md`). That it left is written down first.

    Where a class has fewer rows than the model's `min_centroid_rows` this needs scope `admin`: the weights of
    such a class can be the row itself.
    """
    taken = artifacts.export(service, caller, model, number, recipient)
    headers = {"Content-Disposition": f'attachment; filename="{taken.name}"'}
    return StreamingResponse(taken.parts, media_type=ZIP, headers=headers)


@router.post(
    "/import",
    operation_id="versions_import",
    status_code=201,
    response_model=VersionRead,
    openapi_extra={"requestBody": {"required": True, "content": {ZIP: BINARY}}},
    responses=problems(
        BodyTooLarge,
        ClassNameConflict,
        DimensionMismatch,
        HasVersions,
        IdempotencyMismatch,
        NonFinite,
        NotFound,
        Purged,
        TooFewSamples,
        UnsafeFormat,
        UnsupportedMedia,
        ValidationFailed,
    ),
)
async def import_head(
    request: Request,
    response: Response,
    model: ModelId,
    caller: Trainer,
    service: ServiceDep,
    once: MaybeUploadOnceDep,
) -> VersionRead:
    """Bring in a linear head as the first version: a zip of `head.safetensors` and `head.json`."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != ZIP:
        raise UnsupportedMedia(f"an import is {ZIP}")
    body = await read_body(request, service.settings.limits.import_bytes)
    if once:
        key = await run_in_threadpool(tenant_key, service, caller.tenant_id)
        once = replace(once, fingerprint=hmac.digest(key, body, "sha256").hex())
    found = await run_in_threadpool(imports.import_head, service, caller, model, body, once)
    response.headers["Location"] = versions.path(model, found.number)
    return found
