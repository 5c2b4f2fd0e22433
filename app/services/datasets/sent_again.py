"""Rows that a client sends again to have them forgotten: kept for one forget request, used by nothing else.

They are destroyed by the purge of their request, when it ends without one, when a retry brings others, and
where no open request names them for three days.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services.callers import audit
from app.services.jobs.rows import Urgency, new_job
from app.tables import Dataset, ForgetRequest, Job

UNUSED = timedelta(hours=72)
ENDED = ("completed", "completed-with-exceptions", "rejected", "cancelled")  # states of a request
SYSTEM = "system"


def release(session: Session, dataset_id: UUID | None, actor: str = SYSTEM) -> Job | None:
    """Take rows away that a request no longer needs, unless another open one does; the job to ring for."""
    if dataset_id is None:
        return None
    session.flush()
    query = select(Dataset).filter_by(id=dataset_id, for_forget=True, deleted_at=None)
    row = session.scalar(query.with_for_update())
    if row is None or session.scalar(select(_needed(row.id))):
        return None
    row.deleted_at, row.revision = clock(session), row.revision + 1
    job = new_job(
        session,
        tenant_id=row.tenant_id,
        kind="purge",
        queue="io",
        lane=None,
        urgency=Urgency.OFF_LANE,
        model_id=None,
        resource_id=row.id,
        request={"dataset": row.id.hex},
        actor=actor,
        request_id=None,
    )
    audit.record(
        session,
        tenant_id=row.tenant_id,
        actor=actor,
        action="dataset.deleted",
        resources={"dataset": row.id, "job": job.id},
    )
    return job


def sweep(service: Service) -> int:
    """Take rows away that no open request has named for three days; returns how many datasets."""
    with service.db.read() as session:
        old = clock(session) - UNUSED
        query = select(Dataset.id).where(
            Dataset.for_forget,
            Dataset.deleted_at.is_(None),
            Dataset.created_at < old,
            ~_needed(Dataset.id),
        )
        left = session.scalars(query).all()
    done = 0
    for dataset_id in left:
        with service.db.begin() as session:
            job = release(session, dataset_id)
        if job is not None:
            service.bell.ring(job.id, job.queue)
            done += 1
    return done


def _needed(dataset_id: Any) -> ColumnElement[bool]:
    """Whether a request that has not ended names the dataset."""
    return exists().where(ForgetRequest.rows_id == dataset_id, ForgetRequest.state.not_in(ENDED))
