"""Datasets: rows with labels, streamed in the body, sent once and never appended to."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.responses import StreamingResponse

from app import ids
from app.api.deps import Admin, Allowed, Ingester, Reader, Recipient, ServiceDep, UploadOnceDep
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.api.streams import fingerprinted, in_thread, receive
from app.errors import (
    ArtifactCorrupt,
    BodyTooLarge,
    DimensionMismatch,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyMismatch,
    MissingIdempotencyKey,
    NonFinite,
    NotFound,
    Purged,
    StorageFull,
    SubjectErased,
    SubjectRestricted,
    TooFewSamples,
    UnsafeFormat,
    UnsupportedMedia,
    ValidationFailed,
    VersionNotReady,
    VersionTainted,
)
from app.ids import DatasetId, ModelId
from app.intake import media
from app.intake.clean import Options
from app.schemas.base import Name, VersionNumber
from app.schemas.datasets import DatasetRead, ReportRead
from app.schemas.jobs import JobRead
from app.schemas.times import Instant
from app.service import Caller
from app.services.callers.idempotency import reserved
from app.services.datasets import arrivals, datasets, export
from app.services.policies import policies

router = APIRouter(prefix="/datasets", tags=["datasets"])

Sender = Annotated[Caller, Depends(Allowed("ingest", "forget:create"))]
NPZ = "application/x-npz"
BINARY = {"schema": {"type": "string", "format": "binary"}}
COLUMNS = {"schema": {"type": "object", "description": "Columns by name, each a list with a value a row."}}
CONTENT = {kind: COLUMNS if kind == "application/json" else BINARY for kind in media.MEDIA}


@router.post(
    "",
    status_code=201,
    operation_id="datasets_create",
    openapi_extra={"requestBody": {"required": True, "content": CONTENT}},
    responses={
        200: {"model": DatasetRead, "description": "The bytes of a dataset that is there already."},
        **problems(
            MissingIdempotencyKey,
            IdempotencyInProgress,
            SubjectErased,
            BodyTooLarge,
            UnsupportedMedia,
            UnsafeFormat,
            ValidationFailed,
            DimensionMismatch,
            NonFinite,
            TooFewSamples,
            IdempotencyMismatch,
            NotFound,
            Purged,
            StorageFull,
        ),
    },
)
async def create(
    request: Request,
    response: Response,
    caller: Sender,
    service: ServiceDep,
    once: UploadOnceDep,
    name: Annotated[Name | None, Query(description="Name to show.")] = None,
    label: Annotated[Name | None, Query(description="Label of every row, for files without labels.")] = None,
    split: Annotated[
        Literal["train", "eval"] | None,
        Query(description="What the rows are for, where the file does not say."),
    ] = None,
    on_invalid: Annotated[
        Literal["reject", "quarantine"],
        Query(description="Refuse the upload for one bad row, or leave it out."),
    ] = "reject",
    reconsent: Annotated[
        bool, Query(description="Take rows of erased persons, who agreed again; audited.")
    ] = False,
    for_forget: Annotated[
        bool,
        Query(
            description="Rows that are not stored any more, sent again only to be forgotten: for `rows` of a "
            "forget request or of its retry. Whom they name is not read; no model learns them; destroyed "
            "with the request, or after 72 hours without one. With it scope forget:create is enough."
        ),
    ] = False,
    model: Annotated[
        ModelId | None,
        Query(description="A model that is to learn the rows, by its update policy; needs scope train."),
    ] = None,
) -> DatasetRead:
    """Send rows. `Content-Type` names the format; the first bytes have to agree with it."""
    if not for_forget and not caller.may("ingest"):
        raise Forbidden("this call needs an API key with scope ingest, or for_forget=true")
    options = Options(name or "", label, split, on_invalid, reconsent, for_forget)
    once = await fingerprinted(request, service, once)
    async with contextmanager_in_threadpool(reserved(service, once)) as held:
        if model is not None and held.earlier is None:
            await in_thread(policies.check_offer, service, caller, model)
        format, spooled = await receive(request, service)
        with spooled:
            if held.earlier is not None:
                found = await in_thread(
                    datasets.answered, service, caller, held.earlier, once, spooled.sha256
                )
                response.status_code = held.earlier.status
                response.headers["Idempotency-Replayed"] = "true"
            else:
                found, is_new = await in_thread(
                    arrivals.accept, service, caller, spooled, format, options, held.once, model
                )
                response.status_code = 201 if is_new else 200
    response.headers["Location"] = arrivals.location(found.id)
    return DatasetRead.of(found)


@router.get("", operation_id="datasets_list", responses=problems())
def browse(
    caller: Reader,
    service: ServiceDep,
    paging: PagingDep,
    response: Response,
    created_after: Annotated[Instant | None, Query(description="Only those that came later.")] = None,
) -> PageOf[DatasetRead]:
    """The datasets of this tenant, oldest first."""
    found = datasets.browse(service, caller.tenant_id, paging.place(), created_after=created_after)
    return paging.answer(found, DatasetRead.of, response)


@router.get("/{dataset}", operation_id="datasets_get", responses=problems(NotFound, Purged))
def read(dataset: DatasetId, caller: Reader, service: ServiceDep) -> DatasetRead:
    """One dataset."""
    return DatasetRead.of(datasets.get(service, caller, dataset))


@router.get("/{dataset}/report", operation_id="datasets_report", responses=problems(NotFound, Purged))
def report(dataset: DatasetId, caller: Reader, service: ServiceDep) -> ReportRead:
    """What was accepted, and why the rest was not."""
    return ReportRead.model_validate(datasets.get(service, caller, dataset).report)


@router.delete(
    "/{dataset}", status_code=202, operation_id="datasets_delete", responses=problems(NotFound, Purged)
)
def remove(dataset: DatasetId, caller: Ingester, service: ServiceDep, response: Response) -> JobRead:
    """Destroy a dataset's rows and keys. Versions that used it stay, and so does a tombstone."""
    job = datasets.remove(service, caller, dataset)
    response.headers["Location"] = f"/v1/jobs/{ids.encode('job', job.id)}"
    response.headers["Retry-After"] = "2"
    return JobRead.of(job)


@router.get(
    "/{dataset}/export",
    operation_id="datasets_export",
    response_class=StreamingResponse,
    responses={
        200: {"content": {NPZ: BINARY}, "description": "Grid features, labels, steps, positions, the nonce."},
        **problems(ArtifactCorrupt, NotFound, Purged, SubjectRestricted, VersionNotReady, VersionTainted),
    },
)
def take_out(
    dataset: DatasetId,
    caller: Admin,
    service: ServiceDep,
    model: Annotated[ModelId, Query(description="The model of the version.")],
    version: Annotated[VersionNumber, Query(description="The version that was made from the rows.")],
    recipient: Recipient = None,
) -> StreamingResponse:
    """The rows that a version was made from, as it read them: what it takes to make it again elsewhere
    (`docs/certificates.md`). That they left is written down first."""
    taken = export.export(service, caller, dataset, model, version, recipient)
    headers = {"Content-Disposition": f'attachment; filename="{taken.name}"'}
    return StreamingResponse(taken.parts, media_type=NPZ, headers=headers)
