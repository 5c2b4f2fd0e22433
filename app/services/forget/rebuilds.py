"""Versions that no longer open, or hold rows that are nowhere: made again from the rows that are left."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.orm import Session

from app.config import Settings
from app.services import jobs
from app.tables import Job, Model


def queue_rebuild(
    session: Session, model: Model, versions: Iterable[UUID], settings: Settings, actor: str
) -> Job:
    """A forget job that replaces these versions beside the tainted ones, reading none of what they stored."""
    return jobs.new_job(
        session,
        tenant_id=model.tenant_id,
        kind="forget",
        queue=settings.jobs.update_queue,
        lane=model.id,
        urgency=jobs.Urgency.ERASURE,
        model_id=model.id,
        resource_id=None,
        request={"rebuild": [id.hex for id in versions]},
        actor=actor,
        request_id=None,
        max_attempts=settings.jobs.max_attempts,
    )
