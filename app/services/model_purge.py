"""The purge of a deleted model: what its versions stored is destroyed, tombstones stay without content."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.db import clock, touch
from app.service import Service
from app.services.features import trained_source
from app.tables import Centroid, FeatureMap, Job, JobEvent, ModelClass, Shard, Version, VersionClass

KEPT_RESULTS = ("version", "version_id")  # of a job; the rest names classes


@dataclass(frozen=True)
class Doomed:
    """Keys, each with the file that it opens."""

    versions: list[tuple[UUID, UUID]]
    shards: list[tuple[UUID, UUID]]


def destroy(service: Service, model_id: UUID) -> None:
    """Delete keys and files of every version and of the features it made; repeating it is harmless."""
    with service.db.read() as session:
        doomed = _doomed(session, model_id)
    for key_id, file_id in (*doomed.versions, *doomed.shards):
        service.vault.destroy(key_id, file_id)


def bury(session: Session, model_id: UUID) -> int:
    """What the rows still say of content goes, versions become tombstones; returns how many."""
    versions = session.scalars(select(Version).where(Version.model_id == model_id)).all()
    mine = [row.id for row in versions]
    classes = select(ModelClass.id).where(ModelClass.model_id == model_id)
    session.execute(delete(VersionClass).where(VersionClass.version_id.in_(mine)))
    session.execute(delete(Centroid).where(Centroid.class_id.in_(classes)))
    session.execute(delete(Shard).where(Shard.feature_map_id.in_(_maps(mine))))
    now = clock(session)
    for row in versions:
        row.state, row.purged_at, row.metrics, row.report = "purged", now, {}, {}
    for row in session.scalars(select(ModelClass).where(ModelClass.model_id == model_id)):
        row.name = row.name_key = row.id.hex
        row.retired_at = row.retired_at or now
    _empty_results(session, model_id)
    touch(session)
    return len(versions)


def _doomed(session: Session, model_id: UUID) -> Doomed:
    versions = session.execute(
        select(Version.id, Version.key_id, Version.file_id).where(Version.model_id == model_id)
    ).all()
    shards = session.execute(
        select(Shard.key_id, Shard.file_id).where(
            Shard.feature_map_id.in_(_maps([row.id for row in versions]))
        )
    ).all()
    return Doomed([(row.key_id, row.file_id) for row in versions], [(row[0], row[1]) for row in shards])


def _maps(versions: list[UUID]) -> object:
    sources = [trained_source(id) for id in versions]
    return select(FeatureMap.id).where(FeatureMap.source.in_(sources))


def _empty_results(session: Session, model_id: UUID) -> None:
    done = select(Job).where(Job.model_id == model_id, Job.kind == "update", Job.state == "succeeded")
    for job in session.scalars(done):
        job.result = {name: value for name, value in (job.result or {}).items() if name in KEPT_RESULTS}
        session.execute(
            update(JobEvent)
            .where(JobEvent.job_id == job.id, JobEvent.event == "done")
            .values(data={"state": job.state, "result": job.result, "error": None})
        )
