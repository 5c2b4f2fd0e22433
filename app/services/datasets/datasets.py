"""Datasets: find, list, delete. How one arrives: `arrivals`; what its rows are: `shards`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, IdempotencyMismatch, NotFound, Purged
from app.service import Caller, Service
from app.services import jobs
from app.services.callers import audit
from app.services.callers.access import digest
from app.services.callers.idempotency import Once, Stored
from app.services.paging import Page, Place, Window, window
from app.tables import Dataset, Job


def get(service: Service, caller: Caller, dataset_id: UUID) -> Dataset:
    """A live dataset of the caller's tenant."""
    with service.db.read() as session:
        return live(session, caller.tenant_id, dataset_id)


def live(session: Session, tenant_id: UUID, dataset_id: UUID, *, lock: bool = False) -> Dataset:
    """A dataset that is there; raises `NotFound`, or `Purged` with what its tombstone says."""
    query = select(Dataset).filter_by(id=dataset_id, tenant_id=tenant_id, arriving=False)
    row = session.scalar(query.with_for_update() if lock else query)
    name = ids.encode("dst", dataset_id)
    if row is None:
        raise NotFound(f"there is no dataset {name}")
    if row.deleted_at is not None:
        raise Purged(f"dataset {name} was deleted at {row.deleted_at:%Y-%m-%dT%H:%M:%SZ}")
    return row


def browse(
    service: Service, tenant_id: UUID, page: Page[Place], *, created_after: datetime | None = None
) -> Window[Dataset]:
    """The live datasets of a tenant, oldest first."""
    query = select(Dataset).filter_by(tenant_id=tenant_id, deleted_at=None)
    if created_after is not None:
        query = query.where(Dataset.created_at > created_after)
    with service.db.read() as session:
        return window(session, query, page, Dataset)


def answered(service: Service, caller: Caller, earlier: Stored, once: Once, sha256: str) -> Dataset:
    """The dataset that an idempotency key was answered with, for the same bytes and query again.

    Once an erasure took the fingerprint, the key answers with that dataset unchecked.
    """
    assert earlier.resource_id is not None
    if earlier.fingerprint != once.fingerprint:
        raise IdempotencyMismatch("this Idempotency-Key came with other query fields before")
    row = get(service, caller, earlier.resource_id)
    try:
        known = service.vault.key(row.id).digests.get("upload")
    except ArtifactCorrupt:
        return row
    if known != digest(service, caller.tenant_id, f"upload {sha256}"):
        raise IdempotencyMismatch("this Idempotency-Key came with other bytes before")
    return row


def remove(service: Service, caller: Caller, dataset_id: UUID) -> Job:
    """Take a dataset away at once and queue the job that destroys its rows and keys; a tombstone stays."""
    with service.db.begin() as session:
        row = live(session, caller.tenant_id, dataset_id, lock=True)
        row.deleted_at, row.revision = clock(session), row.revision + 1
        job = jobs.new_job(
            session,
            tenant_id=caller.tenant_id,
            kind="purge",
            queue="io",
            lane=None,
            urgency=jobs.Urgency.OFF_LANE,
            model_id=None,
            resource_id=row.id,
            request={"dataset": row.id.hex},
            actor=caller.actor,
            request_id=caller.request_id,
            max_attempts=service.settings.jobs.max_attempts,
        )
        audit.record(
            session,
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            action="dataset.deleted",
            resources={"dataset": row.id, "job": job.id},
        )
    service.bell.ring(job.id, job.queue)
    return job
