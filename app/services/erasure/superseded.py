"""Versions that know erased rows: retired by the forget that replaced or dropped them, or of a deleted model,
destroyed here.

What other versions share is sealed anew first, then key and files go, then what the rows of the database say.
A version stays as a number in the lineage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.errors import ArtifactCorrupt
from app.service import Service
from app.services.datasets import features
from app.services.erasure import evidence, ledger, purges, rewrites, traces
from app.services.erasure.batches import Batch
from app.services.erasure.parts import parts
from app.services.forget import deleted
from app.services.models import retention
from app.services.models.version_facts import NETWORK
from app.tables import (
    Centroid,
    FeatureMap,
    ForgetItem,
    ForgetRequest,
    Model,
    Shard,
    Version,
    VersionClass,
    VersionDataset,
)
from app.vault import new_key


@dataclass(frozen=True)
class Doomed:
    """Such a version, and the entries of the batch that taint it."""

    version: Version
    sequences: frozenset[int]


def find(session: Session, batch: Batch) -> dict[UUID, list[Doomed]]:
    """Versions that the batch's entries taint, by model, the oldest first: retired ones, those of deleted
    models, and purged ones of which a network was kept."""
    stands = or_(
        Version.state == "retired",
        and_(Version.state == "ready", _of_deleted()),
        and_(Version.state == "purged", Version.id.in_(_trained(session, batch.tenant_id))),
    )
    dead = Version.tenant_id == batch.tenant_id, stands
    candidates: set[UUID] = set()
    for part in parts(batch.rows):
        used = select(VersionDataset.version_id).join(Version, Version.id == VersionDataset.version_id)
        candidates.update(session.scalars(used.where(*dead, VersionDataset.dataset_id.in_(part))))
    for part in parts({id for entry in batch.entries.values() for id in entry.classes}):
        known = select(VersionClass.version_id).join(Version, Version.id == VersionClass.version_id)
        candidates.update(session.scalars(known.where(*dead, VersionClass.class_id.in_(part))))
    found: dict[UUID, list[Doomed]] = {}
    for some in parts(sorted(candidates)):
        taints = ledger.taints(session, some)
        rows = session.scalars(select(Version).where(Version.id.in_(taints)).order_by(Version.number))
        for row in rows.all():
            if mine := frozenset(taints[row.id] & batch.entries.keys()):
                found.setdefault(row.model_id, []).append(Doomed(row, mine))
    return found


def destroy(
    service: Service, doomed: Mapping[UUID, Sequence[Doomed]], batch: Batch, tell: Callable[[float], None]
) -> int:
    """Destroy what these versions stored and what was made with networks they trained; returns how many."""
    for done, versions in enumerate(doomed.values()):
        tell(done / len(doomed))
        rows = [one.version for one in versions]
        for row in _sharing(service, rows):
            while retention.move_centroids(service, row):
                tell(done / len(doomed))
        needed = _destroy_maps(service, rows, tell)
        left = versions
        while left:  # again for those of which another purge kept something under a key of its own meanwhile
            standing = [_network_alone(service, one.version) for one in left if one.version.id in needed]
            for one in left:
                if one.version.id not in needed:
                    service.vault.destroy(one.version.key_id, *purges.files_of(one.version))
            left = _close(service, left, batch) if all(standing) else _again(service, left)
    return sum(len(versions) for versions in doomed.values())


def _of_deleted() -> ColumnElement[bool]:
    return Version.model_id.in_(select(Model.id).where(Model.deleted_at.is_not(None)))


def _usable() -> ColumnElement[bool]:
    return and_(Version.state == "ready", ~_of_deleted())


def _trained(session: Session, tenant_id: UUID) -> list[UUID]:
    """Versions that trained the network of a feature map."""
    prefix = features.trained_source(UUID(int=0))[:-32]
    sources = session.scalars(
        select(FeatureMap.source).where(
            FeatureMap.tenant_id == tenant_id, FeatureMap.source.startswith(prefix)
        )
    )
    return [UUID(hex=source.removeprefix(prefix)) for source in sources]


def _sharing(service: Service, rows: Sequence[Version]) -> list[Version]:
    """Those whose key opens centroids that a usable version shares."""
    with service.db.read() as session:
        keys = session.scalars(
            select(Centroid.key_id)
            .join(VersionClass, VersionClass.centroid_id == Centroid.id)
            .join(Version, Version.id == VersionClass.version_id)
            .where(Centroid.key_id.in_([row.key_id for row in rows]), _usable())
            .distinct()
        ).all()
    return [row for row in rows if row.key_id in set(keys)]


def _destroy_maps(service: Service, rows: Sequence[Version], tell: Callable[[float], None]) -> set[UUID]:
    """Destroy the features on maps that these trained; gives those whose network a usable version reads."""
    with service.db.read() as session:
        sources = {features.trained_source(row.id): row.id for row in rows}
        maps = session.scalars(select(FeatureMap).where(FeatureMap.source.in_(sources))).all()
        used = set(
            session.scalars(
                select(Version.feature_map_id)
                .where(Version.feature_map_id.in_([one.id for one in maps]), _usable())
                .distinct()
            )
        )
    if unused := [one.id for one in maps if one.id not in used]:
        purges.destroy_shards(service, Shard.feature_map_id.in_(unused), tell)
        rewrites.destroy_indexes(service, unused)
    return {sources[one.source] for one in maps if one.id in used}


def _network_alone(service: Service, row: Version) -> bool:
    """Leave of the version's files its network, under a key of its own, and change the row to match.

    False where another purge did so meanwhile: the row must be read again.
    """
    try:
        old = service.vault.key(row.key_id)
    except ArtifactCorrupt:  # where the row still names it, nothing is left to keep
        with service.db.read() as session:
            return session.scalar(select(Version.key_id).filter_by(id=row.id)) == row.key_id
    if old.replaces_key is not None and old.replaces is not None:  # done, but perhaps for the last step
        service.vault.destroy(old.replaces_key, old.replaces)
        return True
    tensors = parse(service.vault.open(row.file_id, old))
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
    file_id, key_id = ids.new(), ids.new()
    key = service.vault.seal(file_id, [dump(own)], new_key())
    service.vault.write_key(key_id, replace(key, replaces=row.file_id, replaces_key=row.key_id))
    with service.db.begin() as session:
        retention.lock(session, row.model_id)
        mine = update(Version).where(Version.id == row.id, Version.key_id == row.key_id)
        names = {"file_id": file_id, "key_id": key_id, "statistics_file_id": None}
        named = session.execute(mine.values(names).returning(Version.id)).one_or_none()
        if named is not None:
            sealed = update(Centroid).where(Centroid.key_id == row.key_id)
            session.execute(sealed.values(ciphertext=b"", key_id=key_id))
            touch(session)
    if named is None:
        service.vault.destroy(key_id, file_id)
        return False
    service.vault.destroy(row.key_id, *purges.files_of(row))
    row.file_id, row.key_id, row.statistics_file_id = file_id, key_id, None
    return True


def _again(service: Service, versions: Sequence[Doomed]) -> list[Doomed]:
    with service.db.read() as session:
        return [replace(one, version=session.get_one(Version, one.version.id)) for one in versions]


def _close(service: Service, versions: Sequence[Doomed], batch: Batch) -> list[Doomed]:
    """Leave of versions their ids, numbers, lineage; gives those that name another key than was destroyed."""
    with service.db.begin() as session:
        retention.lock(session, versions[0].version.model_id)
        names = select(Version.id, Version.key_id, Version.state).where(
            Version.id.in_([one.version.id for one in versions])
        )
        now = {id: (key_id, state) for id, key_id, state in session.execute(names)}
        mine = [one for one in versions if now[one.version.id][0] == one.version.key_id]
        _empty(session, [one.version for one in mine])
        news = [one for one in mine if now[one.version.id][1] != "purged"]  # such a one was counted before
        evidence.add(session, (id for one in news for id in batch.requests(one.sequences)), "versions")
        for one in mine:
            if now[one.version.id][1] == "ready":
                _withdraw(session, one.version, batch.requests(one.sequences))
        traces.empty(session, [one.version for one in mine])
        touch(session)
    return _again(service, [one for one in versions if one not in mine])


def _withdraw(session: Session, version: Version, request_ids: Sequence[UUID]) -> None:
    """Say in requests that a version of a deleted model went as it was: nothing was to replace it."""
    query = select(ForgetRequest.id).where(
        ForgetRequest.id.in_(request_ids), ForgetRequest.duplicate_of.is_(None)
    )
    for request_id in session.scalars(query):
        detail: dict[str, Any] = {
            "number": version.number,
            "replacement": None,
            "replacement_id": None,
            "way": "drop",
            "guarantee": "exact",
            "reason": deleted.REASON,
            "checks": {},
            "seconds": 0.0,
        }
        item = ForgetItem(
            request_id=request_id,
            kind="version",
            resource_id=version.id,
            tenant_id=version.tenant_id,
            state="done",
            job_id=None,
            detail=detail,
        )
        session.merge(item)


def _empty(session: Session, rows: Sequence[Version]) -> None:
    made, keys = [row.id for row in rows], [row.key_id for row in rows]
    session.execute(
        update(Version)
        .where(Version.id.in_(made))
        .values(
            state="purged",
            purged_at=func.coalesce(Version.purged_at, clock(session)),
            statistics_file_id=None,
            metrics={},
            report={},
        )
    )
    session.execute(update(VersionClass).where(VersionClass.version_id.in_(made)).values(centroid_id=None))
    shared = exists().where(VersionClass.centroid_id == Centroid.id)
    session.execute(delete(Centroid).where(Centroid.key_id.in_(keys), ~shared))
    session.execute(update(Centroid).where(Centroid.key_id.in_(keys)).values(ciphertext=b""))
