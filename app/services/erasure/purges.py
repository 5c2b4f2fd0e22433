"""Destroying what was stored: keys first, then files, then the rows that named them. Safe to repeat anywhere.

Tombstones and lineage stay. The keyed digests of the persons in a deleted dataset stay too while a version
that used it is there, or a job that may publish one: a forget request has to find that version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Exists, delete, exists, select, update
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.service import Service
from app.services.datasets import row_index
from app.services.jobs.rows import DONE
from app.services.policies import offers
from app.tables import (
    Centroid,
    Dataset,
    Decision,
    FeatureMap,
    Job,
    JobDataset,
    JobEvent,
    ModelClass,
    RestrictedRow,
    Sample,
    SampleSubject,
    Shard,
    Version,
    VersionClass,
    VersionDataset,
)

AT_ONCE = 50  # shards between two safe points
ROWS = 20_000  # positions of one transaction

Tell = Callable[[float], None]
Json = dict[str, Any]


def files_of(version: Version) -> list[UUID]:
    """The files that a version's key opens."""
    return [id for id in (version.file_id, version.statistics_file_id) if id is not None]


def purge_dataset(service: Service, dataset_id: UUID, tell: Tell) -> int:
    """Destroy the rows and keys of a deleted dataset, as sent and on every grid; returns how many shards.

    Of a dataset that a version used fingerprints stay first: rows that are sent again to be forgotten must be
    among them.
    """
    row_index.write(service, dataset_id, tell)
    service.vault.destroy(dataset_id)
    destroyed = destroy_shards(service, Shard.dataset_id == dataset_id, tell)
    with service.db.begin() as session:
        row = session.get_one(Dataset, dataset_id)
        row.name, row.classes, row.report = "", {}, {}
        row.train_rows = row.eval_rows = 0
        unused = not _is_used(session, dataset_id)
    if unused:
        remove_samples(service, dataset_id)
    return destroyed


def purge_model(service: Service, model_id: UUID, tell: Tell) -> int:
    """Destroy what the versions of a deleted model stored; returns how many there were."""
    with service.db.read() as session:
        versions = session.scalars(select(Version).filter_by(model_id=model_id)).all()
        maps = session.scalars(
            select(FeatureMap.id).where(FeatureMap.source.in_([f"version:{row.id.hex}" for row in versions]))
        ).all()
    for row in versions:
        tell(0.0)
        service.vault.destroy(row.key_id, *files_of(row))
    destroy_shards(service, Shard.feature_map_id.in_(maps), tell)
    with service.db.begin() as session:
        _empty_versions(session, model_id, [row.id for row in versions])
        _empty_jobs(session, model_id)
        offers.remove(session, model_id)
        session.execute(update(Decision).where(Decision.model_id == model_id).values(reason="", gates=[]))
        touch(session)
    for dataset_id in left_behind(service, [row.id for row in versions]):
        remove_samples(service, dataset_id)
    return len(versions)


def destroy_shards(service: Service, which: object, tell: Tell) -> int:
    """Destroy the shards that a condition names; returns how many."""
    destroyed = 0
    while True:
        with service.db.read() as session:
            query = select(Shard).where(which).order_by(Shard.id).limit(AT_ONCE)  # type: ignore[arg-type]
            part = session.scalars(query).all()
        if not part:
            return destroyed
        tell(destroyed / (destroyed + len(part)))
        for shard in part:
            service.vault.destroy(shard.key_id, shard.file_id)
        with service.db.begin() as session:
            session.execute(delete(Shard).where(Shard.id.in_([shard.id for shard in part])))
        destroyed += len(part)


def _empty_versions(session: Session, model_id: UUID, versions: Sequence[UUID]) -> None:
    """Leave of versions and classes their ids, numbers and lineage."""
    mine = Version.model_id == model_id
    session.execute(
        update(Version).where(mine).values(state="purged", purged_at=clock(session), metrics={}, report={})
    )
    session.execute(
        update(VersionClass).where(VersionClass.version_id.in_(versions)).values(centroid_id=None)
    )
    classes = session.scalars(select(ModelClass).filter_by(model_id=model_id)).all()
    session.execute(delete(Centroid).where(Centroid.class_id.in_([row.id for row in classes])))
    for row in classes:
        row.name = row.name_key = ids.encode("cls", row.id)


def _empty_jobs(session: Session, model_id: UUID) -> None:
    """Take the names of classes out of what updates gave back, and out of what they told on the way."""
    jobs = session.scalars(select(Job).where(Job.model_id == model_id, Job.kind != "purge")).all()
    for job in jobs:
        job.result, job.error = _without_names(job.result, job.error)
        job.revision += 1
    mine = JobEvent.job_id.in_([job.id for job in jobs])
    session.execute(delete(JobEvent).where(mine, JobEvent.event == "log"))
    for line in session.scalars(select(JobEvent).where(mine, JobEvent.event == "done")):
        result, error = _without_names(line.data["result"], line.data["error"])
        line.data = {**line.data, "result": result, "error": error}


def _without_names(result: Json | None, error: Json | None) -> tuple[Json | None, Json | None]:
    return (
        result and {**result, "classes_added": [], "metrics": {}, "gates": []},
        error and {**error, "detail": "", "errors": []},
    )


def _is_used(session: Session, dataset_id: UUID) -> bool:
    """Whether a version that is there used the dataset, or a job reads it that has not ended: in that order a
    publication meanwhile is seen as one or the other."""
    if session.scalar(select(_reader(dataset_id))):
        return True
    query = (
        select(VersionDataset.dataset_id)
        .join(Version, Version.id == VersionDataset.version_id)
        .where(VersionDataset.dataset_id == dataset_id, Version.state != "purged")
    )
    return session.scalar(query.limit(1)) is not None


def _reader(dataset_id: Any) -> Exists:
    return exists().where(
        JobDataset.dataset_id == dataset_id, JobDataset.job_id == Job.id, Job.state.not_in(DONE)
    )


def remove_left(service: Service) -> int:
    """Remove who the rows of deleted datasets were about, where that stayed for jobs which published nothing;
    returns of how many datasets."""
    known = exists().where(Sample.dataset_id == Dataset.id)
    used = exists().where(
        VersionDataset.dataset_id == Dataset.id,
        VersionDataset.version_id == Version.id,
        Version.state != "purged",
    )
    query = select(Dataset.id).where(
        Dataset.deleted_at.is_not(None), known, ~_reader(Dataset.id), ~used, ~Dataset.arriving
    )
    with service.db.read() as session:
        left = session.scalars(query).all()
    for dataset_id in left:
        remove_samples(service, dataset_id)
    return len(left)


def left_behind(service: Service, versions: Sequence[UUID]) -> list[UUID]:
    """Deleted datasets of these versions that no version uses any more."""
    with service.db.read() as session:
        used = exists().where(
            VersionDataset.dataset_id == Dataset.id, VersionDataset.version_id.in_(versions)
        )
        deleted = session.scalars(select(Dataset.id).where(Dataset.deleted_at.is_not(None), used)).all()
        return [id for id in deleted if not _is_used(session, id)]


def remove_samples(service: Service, dataset_id: UUID) -> None:
    """Remove who the rows were about, some thousand positions a transaction, and their fingerprints."""
    row_index.destroy(service, dataset_id)
    with service.db.read() as session:
        rows = session.get_one(Dataset, dataset_id).rows
    for first in range(0, rows, ROWS):
        with service.db.begin() as session:
            for table in (SampleSubject, Sample, RestrictedRow):
                here = table.position.between(first, first + ROWS - 1)
                session.execute(delete(table).where(table.dataset_id == dataset_id, here))
