"""What is left of a version beside itself: results of jobs, stored answers, checkpoints, journals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.errors import NotReady
from app.service import Service
from app.services.erasure.parts import parts
from app.tables import (
    Checkpoint,
    Decision,
    ForgetItem,
    IdempotencyRecord,
    Job,
    JobDataset,
    JobEvent,
    Version,
)

STAYS = ("version", "version_id")  # of a job's result; the rest is counts, names and measurements
CHECKS = "checks"  # of a forget item: numbers measured on the version that it tells of


def empty(session: Session, versions: Sequence[Version]) -> None:
    """Take what tells a row out of what was said of versions: measurements, counts and names of classes."""
    made = [row.id for row in versions]
    job_ids = [row.job_id for row in versions if row.job_id is not None]
    for job in session.scalars(select(Job).where(Job.id.in_(job_ids), Job.result.is_not(None))):
        job.result = _bare(job.result)
        job.revision += 1
    lines = select(JobEvent).where(JobEvent.job_id.in_(job_ids), JobEvent.event == "done")
    for line in session.scalars(lines):
        line.data = {**line.data, "result": _bare(line.data.get("result"))}
    _forget_progress(session, job_ids)
    session.execute(update(Decision).where(Decision.job_id.in_(job_ids)).values(gates=[]))
    forget_bodies(session, [*made, *job_ids])
    replaced = [row.replaces_id for row in versions if row.replaces_id is not None]
    told = select(ForgetItem).where(ForgetItem.kind == "version", ForgetItem.resource_id.in_(replaced))
    for item in session.scalars(told):
        item.detail = {name: value for name, value in item.detail.items() if name != CHECKS}


def forget_progress(service: Service, dataset_ids: Iterable[UUID]) -> None:
    """Forget what jobs told on the way while they learned from these datasets: losses are made of rows."""
    for part in parts(dataset_ids):
        with service.db.begin() as session:
            jobs = select(JobDataset.job_id).where(JobDataset.dataset_id.in_(part)).distinct()
            _forget_progress(session, session.scalars(jobs).all())


def _forget_progress(session: Session, job_ids: Sequence[UUID]) -> None:
    for part in parts(job_ids):
        lines = delete(JobEvent).where(JobEvent.job_id.in_(part), JobEvent.event == "progress")
        session.execute(lines)
        for job in session.scalars(select(Job).where(Job.id.in_(part))):
            if job.progress.get("message"):
                job.progress = {**job.progress, "message": ""}


def forget_bodies(session: Session, resource_ids: Iterable[UUID]) -> None:
    """Empty the stored answers of calls that made these; their keys stay taken."""
    for part in parts(resource_ids):
        mine = IdempotencyRecord.resource_id.in_(part), IdempotencyRecord.status.is_not(None)
        session.execute(update(IdempotencyRecord).where(*mine).values(body=None))


def destroy_checkpoints(
    service: Service, gone: Mapping[UUID, NDArray[np.int64]], models: Collection[UUID], sequence: int
) -> int:
    """Destroy what jobs saved for a successor while they used erased rows, or a version of these models from
    before entry `sequence` of the ledger; returns how many."""
    with service.db.read() as session:
        query = select(Checkpoint, Job.model_id).join(Job, Job.id == Checkpoint.job_id)
        found = [(row, model_id) for row, model_id in session.execute(query)]
    used = [
        row
        for row, model_id in found
        if _uses(row.left_out, gone) or (model_id in models and row.ledger_sequence < sequence)
    ]
    for row in used:
        service.vault.destroy(row.key_id, row.file_id)
    if used:
        with service.db.begin() as session:
            for row in used:
                mine = Checkpoint.id == row.id, Checkpoint.key_id == row.key_id
                session.execute(delete(Checkpoint).where(*mine))
    return len(used)


def tidy(service: Service) -> None:
    """Leave nothing of what was erased in the journal of SQLite, or in the folder of messages that were read.

    Raises `NotReady` while a reader keeps the journal. PostgreSQL keeps old rows and its log a while: no row
    content is in the database in the clear.
    """
    if service.db.engine.dialect.name == "sqlite":
        connection = service.db.engine.raw_connection()
        try:
            busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()
        if busy:
            raise NotReady("a reader keeps the journal of the database: it holds what was erased")
    if not service.settings.broker.url:
        for path in (service.settings.data_dir / "broker" / "processed").glob("*"):
            path.unlink(missing_ok=True)


def _bare(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if result is None else {name: result[name] for name in STAYS if name in result}


def _uses(left_out: Mapping[str, Sequence[int]], gone: Mapping[UUID, NDArray[np.int64]]) -> bool:
    for dataset, positions in left_out.items():
        erased = gone.get(UUID(hex=dataset))
        if erased is not None and not np.isin(erased, positions).all():
            return True
    return False
