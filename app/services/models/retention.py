"""Which versions stay usable: the newest of a model, and those that an alias names. Older ones are retired.

Retiring is part of the publication that makes a version too many; a job then destroys what the retired ones
stored. Rows stay: numbers, metrics, lineage, class maps with counts.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.service import Service
from app.services import jobs
from app.services.callers import audit
from app.services.datasets import features
from app.services.erasure.purges import files_of
from app.services.models import versions
from app.services.models.snapshots import NETWORK
from app.tables import Alias, Centroid, FeatureMap, Job, Model, Version, VersionClass
from app.vault import new_key

AT_ONCE = 500  # centroids sealed anew in one transaction


def retire(session: Session, model: Model, *, actor: str, request_id: str | None = None) -> Job | None:
    """Retire what is too old, and queue the job that destroys it. The caller holds the lock of the model's
    row, and rings after its commit."""
    ready = session.scalars(
        select(Version).filter_by(model_id=model.id, state="ready").order_by(Version.number.desc())
    ).all()
    named = set(session.scalars(select(Alias.version_id).filter_by(model_id=model.id)))
    newest = versions.newest_untainted(session, model.id)
    old = [row for row in ready[model.keep_versions :] if row.id not in named and row is not newest]
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
    return queue_purge(session, model, actor=actor, request_id=request_id)


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
        retired = session.scalars(
            select(Version)
            .filter_by(model_id=model_id, state="retired", purged_at=None)
            .order_by(Version.number)
        ).all()
    for done, row in enumerate(retired):
        tell(done / len(retired))
        while _move_centroids(service, row):
            tell(done / len(retired))
        if _trained_network(service, row):
            _keep_network(service, row)
        else:
            service.vault.destroy(row.key_id, *files_of(row))
            with service.db.begin() as session:
                _close(session, row, row.file_id, row.key_id)
    return len(retired)


def _move_centroids(service: Service, row: Version) -> int:
    """Seal some centroids that other versions share under the key of the newest of these."""
    with service.db.begin() as session:
        _lock(session, row.model_id)
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


def _lock(session: Session, model_id: UUID) -> None:
    """No version of the model is retired before this transaction ends."""
    session.scalars(select(Model).filter_by(id=model_id).with_for_update()).one()


def _trained_network(service: Service, row: Version) -> bool:
    """Whether the network of a feature map lies in this version's file."""
    with service.db.read() as session:
        source = features.trained_source(row.id)
        return session.scalar(select(FeatureMap.id).filter_by(source=source).limit(1)) is not None


def _keep_network(service: Service, row: Version) -> None:
    """Leave the network, which later versions read, in a file and under a key of its own."""
    old = service.vault.key(row.key_id)
    tensors = parse(service.vault.open(row.file_id, old))
    network = {name: tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
    file_id, key_id = ids.new(), ids.new()
    service.vault.write_key(key_id, service.vault.seal(file_id, [dump(network)], new_key()))
    with service.db.begin() as session:
        mine = _close(session, row, file_id, key_id)
    if mine:
        service.vault.destroy(row.key_id, *files_of(row))
    else:  # another job was first
        service.vault.destroy(key_id, file_id)


def _close(session: Session, row: Version, file_id: UUID, key_id: UUID) -> bool:
    """Say that what the version stored is gone; False where somebody said so before."""
    mine = session.scalar(
        update(Version)
        .where(Version.id == row.id, Version.purged_at.is_(None), Version.key_id == row.key_id)
        .values(purged_at=clock(session), statistics_file_id=None, file_id=file_id, key_id=key_id)
        .returning(Version.id)
    )
    if mine is None:
        return False
    session.execute(  # counts stay
        update(Centroid).where(Centroid.key_id == row.key_id).values(ciphertext=b"", key_id=key_id)
    )
    touch(session)
    return True
