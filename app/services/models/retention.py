"""Which versions stay usable: the newest of a model, those that an alias names, and those that an accepted
update builds on. Older ones are retired.

Retiring is part of the publication that makes a version too many; a job then destroys what the retired ones
stored. Rows stay: numbers, metrics, lineage, class maps with counts; of what was stored only a network, and
statistics, that a usable version builds on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.errors import ArtifactCorrupt
from app.service import Service
from app.services import jobs
from app.services.callers import audit
from app.services.datasets import features
from app.services.erasure.purges import files_of
from app.services.jobs.rows import DONE, State
from app.services.models import coverage, versions
from app.services.models.version_facts import NETWORK
from app.tables import Alias, Centroid, FeatureMap, Job, Model, Version, VersionClass
from app.vault import new_key

AT_ONCE = 500  # centroids sealed anew in one transaction


def retire(session: Session, model: Model, *, actor: str, request_id: str | None = None) -> Job | None:
    """Retire what is too old, and queue the job that destroys it. The caller holds the lock of the model's
    row, and rings after its commit."""
    ready = [row for row, _ in versions.by_age(session, model.id)]
    named = set(session.scalars(select(Alias.version_id).filter_by(model_id=model.id)))
    newest = versions.newest_untainted(session, model.id)
    bases = _bases(session, model.id)
    old = [
        row
        for row in ready[model.keep_versions :]
        if row.id not in named and row is not newest and row.number not in bases
    ]
    if not old:
        return None
    for row in old:
        row.state = "retired"
        audit.record(
            session,
            tenant_id=model.tenant_id,
            actor=actor,
            action="version.retired",
            resources={"model": model.id, "version": row.id},
        )
    touch(session)
    if _purge_waits(session, model.id):
        return None
    return queue_purge(session, model, actor=actor, request_id=request_id)


def _bases(session: Session, model_id: UUID) -> set[int]:
    """Numbers of what updates which have not ended will build on."""
    requests = session.scalars(
        select(Job.request).where(Job.lane == model_id, Job.kind == "update", Job.state.not_in(DONE))
    )
    named = {request["base"] for request in requests if request["base"] is not None}
    return {versions.in_its_place(session, model_id, number) for number in named}


def _purge_waits(session: Session, model_id: UUID) -> bool:
    """Whether a purge that no worker has begun will see what is retired now: it is held until the commit."""
    query = (
        select(Job.id)
        .where(Job.model_id == model_id, Job.resource_id == model_id, Job.kind == "purge")
        .where(Job.state == State.QUEUED)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return session.scalar(query) is not None


def queue_purge(session: Session, model: Model, *, actor: str, request_id: str | None = None) -> Job:
    """The job that destroys what retired versions of a model stored."""
    return jobs.new_job(
        session,
        tenant_id=model.tenant_id,
        kind="purge",
        queue="io",
        lane=None,
        urgency=jobs.Urgency.OFF_LANE,
        model_id=model.id,
        resource_id=model.id,  # which tells it from the purge of the whole model
        request={"retired": model.id.hex},
        actor=actor,
        request_id=request_id,
    )


def purge_retired(service: Service, model_id: UUID, tell: Callable[[float], None]) -> int:
    """Destroy what retired versions of a model stored; returns how many. Safe to repeat anywhere."""
    with service.db.read() as session:
        due = _due(session, model_id)
    for done, row in enumerate(due):
        tell(done / len(due))
        while move_centroids(service, row):
            tell(done / len(due))
        _destroy(service, row)
    return len(due)


def _due(session: Session, model_id: UUID) -> list[Version]:
    """Retired versions that still store what nothing builds on, the oldest first."""
    rows = session.scalars(
        select(Version).filter_by(model_id=model_id, state="retired").order_by(Version.number)
    ).all()
    needed = _needed(session, model_id)
    return [row for row in rows if row.purged_at is None or (row.statistics_file_id and row.id not in needed)]


def _needed(session: Session, model_id: UUID) -> set[UUID]:
    """Versions whose statistics a usable one, or what is learned on it, builds on. They only become fewer:
    a new version takes its base's."""
    ready = session.scalars(select(Version).filter_by(model_id=model_id, state="ready"))
    return {found.id for row in ready if (found := coverage.nearest(session, row)) is not None}


def move_centroids(service: Service, row: Version) -> int:
    """Seal some centroids that usable versions share under the key of the newest of these."""
    with service.db.begin() as session:
        lock(session, row.model_id)
        sharers = session.execute(
            select(Centroid.id, func.max(Version.number))
            .join(VersionClass, VersionClass.centroid_id == Centroid.id)
            .join(Version, Version.id == VersionClass.version_id)
            .where(Centroid.key_id == row.key_id, Version.state == "ready")
            .group_by(Centroid.id)
            .limit(AT_ONCE)
        ).all()
        if not sharers:
            return 0
        numbers = {number for _, number in sharers}
        key_ids = {
            number: key_id
            for number, key_id in session.execute(
                select(Version.number, Version.key_id).where(
                    Version.model_id == row.model_id, Version.number.in_(numbers)
                )
            )
        }
        old = service.vault.key(row.key_id)
        keys = {number: service.vault.key(key_id) for number, key_id in key_ids.items()}
        for id, number in sharers:
            centroid = session.get_one(Centroid, id)
            sums = service.vault.open_value(centroid.ciphertext, old, id)
            centroid.ciphertext = service.vault.seal_value(sums, keys[number], id)
            centroid.key_id = key_ids[number]
        return len(sharers)


def lock(session: Session, model_id: UUID) -> None:
    """No version of the model is retired before this transaction ends."""
    session.scalars(select(Model).filter_by(id=model_id).with_for_update()).one()


def _destroy(service: Service, row: Version) -> None:
    """Destroy what the version stored but what others build on, which moves to a key of its own."""
    with service.db.begin() as session:
        lock(session, row.model_id)
        if not _as_read(session, row):
            return  # another job was first
        network = _trained_network(session, row)
        statistics = row.id in _needed(session, row.model_id)
    if network or statistics:
        _keep(service, row, network=network, statistics=statistics)
        return
    service.vault.destroy(row.key_id, *files_of(row))
    with service.db.begin() as session:
        _close(session, row, row.file_id, row.key_id)


def _as_read(session: Session, row: Version) -> bool:
    """Whether nobody has destroyed anything of the version since its row was read."""
    now = session.execute(
        select(Version.key_id, Version.purged_at, Version.statistics_file_id).filter_by(id=row.id)
    ).one()
    return tuple(now) == (row.key_id, row.purged_at, row.statistics_file_id)


def _trained_network(session: Session, row: Version) -> bool:
    """Whether the network of a feature map lies in this version's file."""
    source = features.trained_source(row.id)
    return session.scalar(select(FeatureMap.id).filter_by(source=source).limit(1)) is not None


def _keep(service: Service, row: Version, *, network: bool, statistics: bool) -> None:
    """Leave the network, or the statistics, which later versions read, in files under a key of their own."""
    try:
        kept = _sealed_anew(service, row, network, statistics)
    except ArtifactCorrupt:
        with service.db.read() as session:
            if _as_read(session, row):
                raise
        return  # another job was first
    with service.db.begin() as session:
        mine = _close(session, row, kept.file_id, kept.key_id, kept.statistics_file_id)
    if mine:
        service.vault.destroy(row.key_id, *files_of(row))
    else:
        service.vault.destroy(kept.key_id, *kept.files)


@dataclass(frozen=True)
class _Kept:
    key_id: UUID
    file_id: UUID  # nothing lies there without a network
    statistics_file_id: UUID | None

    @property
    def files(self) -> list[UUID]:
        return [self.file_id, *([self.statistics_file_id] if self.statistics_file_id else [])]


def _sealed_anew(service: Service, row: Version, network: bool, statistics: bool) -> _Kept:
    kept = _Kept(ids.new(), ids.new(), ids.new() if statistics else None)
    old, key = service.vault.key(row.key_id), new_key()
    if network:
        tensors = parse(service.vault.open(row.file_id, old))
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
        key = service.vault.seal(kept.file_id, [dump(own)], key)
    if kept.statistics_file_id:
        assert row.statistics_file_id is not None
        key = service.vault.seal(
            kept.statistics_file_id, [service.vault.open(row.statistics_file_id, old)], key
        )
        key = replace(key, digests={**key.digests, "statistics": old.digests["statistics"]})
    service.vault.write_key(kept.key_id, key)
    return kept


def _close(
    session: Session, row: Version, file_id: UUID, key_id: UUID, statistics_file_id: UUID | None = None
) -> bool:
    """Say that what the version stored is gone but what these name; False where somebody said so before."""
    lock(session, row.model_id)
    if not _as_read(session, row):
        return False
    session.execute(
        update(Version)
        .where(Version.id == row.id)
        .values(
            purged_at=row.purged_at or clock(session),
            statistics_file_id=statistics_file_id,
            file_id=file_id,
            key_id=key_id,
        )
    )
    session.execute(  # counts stay
        update(Centroid).where(Centroid.key_id == row.key_id).values(ciphertext=b"", key_id=key_id)
    )
    touch(session)
    return True
