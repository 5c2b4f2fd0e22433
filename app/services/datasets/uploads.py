"""Uploads of weights: a safetensors file, checked by its header, encrypted under a key of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from safetensors import SafetensorError, safe_open
from sqlalchemy import select

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, BodyTooLarge, IdempotencyMismatch, NotFound, ValidationFailed
from app.intake.spool import Spooled
from app.service import Caller, Service
from app.services.callers import audit
from app.services.callers.access import digest
from app.services.callers.idempotency import Once, Stored
from app.tables import Upload
from app.vault import KeyObject, new_key

MOST_TENSORS = 10_000
LONGEST_NAME = 300
PART = 1 << 20


def accept(service: Service, caller: Caller, spooled: Spooled, name: str, once: Once | None = None) -> Upload:
    """Check the header of a file of weights and store the file."""
    tensors = header(spooled)
    file_id, key_id = ids.new(), ids.new()
    fresh = KeyObject(
        key=new_key().key, digests={"upload": digest(service, caller.tenant_id, f"upload {spooled.sha256}")}
    )
    try:
        key = service.vault.seal(file_id, _parts(spooled), fresh)
        service.vault.write_key(key_id, key)
        with service.db.begin() as session:
            row = Upload(
                id=ids.new(),
                created_at=clock(session),
                tenant_id=caller.tenant_id,
                name=name or "weights",
                bytes=spooled.source.bytes,
                tensors=tensors,
                file_id=file_id,
                key_id=key_id,
            )
            session.add(row)
            session.flush()
            audit.record(
                session,
                tenant_id=caller.tenant_id,
                actor=caller.actor,
                action="upload.accepted",
                resources={"upload": row.id},
            )
            if once:
                location = {"Location": f"/v1/uploads/{ids.encode('upl', row.id)}"}
                once.finish(session, status=201, headers=location, resource_id=row.id)
    except BaseException:
        if not _is_named(service, file_id):  # the commit may have come through and its answer been lost
            service.vault.destroy(key_id, file_id)
        raise
    return row


def get(service: Service, caller: Caller, upload_id: UUID) -> Upload:
    """An upload of the caller's tenant."""
    with service.db.read() as session:
        row = session.scalar(select(Upload).filter_by(id=upload_id, tenant_id=caller.tenant_id))
    if row is None:
        raise NotFound(f"there is no upload {ids.encode('upl', upload_id)}")
    return row


def answered(service: Service, caller: Caller, earlier: Stored, once: Once, sha256: str) -> Upload:
    """The upload that an idempotency key was answered with, for the same bytes again."""
    assert earlier.resource_id is not None
    row = get(service, caller, earlier.resource_id)
    try:
        known = service.vault.key(row.key_id).digests.get("upload")
    except ArtifactCorrupt:
        return row
    same_bytes = known == digest(service, caller.tenant_id, f"upload {sha256}")
    if not same_bytes or earlier.fingerprint != once.fingerprint:
        raise IdempotencyMismatch("this Idempotency-Key came with another upload before")
    return row


def header(spooled: Spooled) -> dict[str, Any]:
    """Names, types and shapes; safetensors itself checks that offsets fit, touch and cover the file."""
    try:
        with safe_open(f"/dev/fd/{spooled.source.file.fileno()}", framework="numpy") as file:
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names[:MOST_TENSORS]}
            tensors = {
                name: {"dtype": part.get_dtype(), "shape": list(part.get_shape())}
                for name, part in slices.items()
            }
    except SafetensorError:
        raise ValidationFailed("the file is damaged or cut off") from None
    if not names:
        raise ValidationFailed("the file has no tensors")
    if len(names) > MOST_TENSORS:
        raise BodyTooLarge(f"the file has more than {MOST_TENSORS} tensors")
    for name in names:
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise ValidationFailed(f"a tensor's name has 1 to {LONGEST_NAME} printable characters")
    return tensors


def _is_named(service: Service, file_id: UUID) -> bool:
    with service.db.read() as session:
        return session.scalar(select(Upload.id).filter_by(file_id=file_id)) is not None


def _parts(spooled: Spooled) -> Iterator[bytes]:
    spooled.source.file.seek(0)
    while part := spooled.source.file.read(PART):
        yield part
