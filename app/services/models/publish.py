"""Publication: one transaction that makes a version visible with everything it stands on, or nothing.

Bytes come first: the version's file and key object, and new shards, are stored before this runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import func, select
from sqlalchemy import insert as sql_insert
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.methods.base import Centroid, Snapshot
from app.service import Service
from app.services.callers import audit
from app.services.erasure import ledger
from app.services.models import aliases, classes, gates, models, versions
from app.services.models.snapshots import Saved
from app.tables import Centroid as CentroidRow
from app.tables import (
    Dataset,
    FeatureMap,
    Model,
    ModelClass,
    Shard,
    Version,
    VersionClass,
    VersionDataset,
)


@dataclass(frozen=True)
class Edge:
    """What the rows of a dataset did for the version, and the positions that it did not use."""

    dataset_id: UUID
    role: str  # train, evaluate, select
    rows: int
    left_out: tuple[int, ...]
    inherited: bool = False


@dataclass(frozen=True)
class Shared:
    """A centroid of the base as it is stored."""

    id: UUID
    centroid: Centroid


@dataclass(frozen=True)
class Draft:
    """A version before it has a number."""

    id: UUID
    model_id: UUID
    tenant_id: UUID
    snapshot: Snapshot
    saved: Saved
    key_id: UUID
    method: str
    params: Mapping[str, Any]
    seed: int = 0
    base_id: UUID | None = None
    replaces_id: UUID | None = None  # the version whose erased rows this one is without
    retired: bool = False  # only its statistics are kept, for those that build on them
    job_id: UUID | None = None
    feature_map_id: UUID | None = None  # None: a new map of `feature_source`
    feature_source: str = ""
    ledger_sequence: int = 0
    edges: Sequence[Edge] = ()
    left_out: ledger.Positions = field(default_factory=dict)  # what was unusable when the rows were chosen
    classes_out: Collection[str] = frozenset()  # and the classes whose rows are among them
    shards: Sequence[Shard] = ()  # of the new map
    base_centroids: Mapping[str, Shared] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Promotion:
    """Whether an alias moved to the new version, and what the gates said."""

    alias: str | None
    gates: list[dict[str, Any]]
    reason: str = ""


def still_holds(session: Session, draft: Draft) -> bool:
    """Whether every row that the draft used may still be used.

    Of its own datasets neither restriction nor erasure may have come, of a row or of a class that they have;
    of its ancestors' no erasure, which taints the base.
    """
    if ledger.newly_unusable(session, draft.left_out, draft.model_id):
        return False
    if ledger.newly_out(session, draft.model_id, draft.classes_out, draft.left_out):
        return False
    return draft.base_id is None or not ledger.tainted(session, [draft.base_id])


def insert(service: Service, session: Session, model: Model, draft: Draft, actor: str) -> Version:
    """Write the version and what belongs to it; the caller holds the lock of the model's row."""
    now = clock(session)
    version = Version(
        id=draft.id,
        tenant_id=model.tenant_id,
        created_at=now,
        model_id=model.id,
        number=next_number(session, model.id),
        parent_id=draft.base_id,
        replaces_id=draft.replaces_id,
        job_id=draft.job_id,
        feature_map_id=draft.feature_map_id or _new_map(session, model, draft, now),
        method=draft.method,
        params=dict(draft.params),
        seed=draft.seed,
        state="retired" if draft.retired else "ready",
        ledger_sequence=draft.ledger_sequence,
        file_id=draft.saved.file_id,
        statistics_file_id=draft.saved.statistics_file_id,
        key_id=draft.key_id,
        metrics=dict(draft.metrics),
        report=dict(draft.report),
        seconds=draft.seconds,
        purged_at=now if draft.retired else None,
    )
    session.add(version)
    session.flush()
    _class_map(service, session, model, version, draft)
    for edge in draft.edges:
        session.add(
            VersionDataset(
                version_id=version.id,
                dataset_id=edge.dataset_id,
                role=edge.role,
                inherited=edge.inherited,
                rows=edge.rows,
                left_out=list(edge.left_out),
            )
        )
    resources = {"model": model.id, "version": version.id}
    audit.record(
        session, tenant_id=model.tenant_id, actor=actor, action="version.published", resources=resources
    )
    touch(session)
    return version


def shared(session: Session, version_id: UUID, centroids: Mapping[str, Centroid]) -> dict[str, Shared]:
    """How the centroids of a version are stored, for one that builds on it."""
    rows = session.execute(
        select(ModelClass.name, VersionClass.centroid_id)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .where(VersionClass.version_id == version_id)
    )
    return {name: Shared(id, centroids[name]) for name, id in rows if id is not None and name in centroids}


def next_number(session: Session, model_id: UUID) -> int:
    """The number of the next version, purged ones counted."""
    newest = session.scalar(select(func.max(Version.number)).where(Version.model_id == model_id))
    return 1 + (newest or 0)


def promote(
    session: Session,
    model: Model,
    version: Version,
    alias: str | None,
    *,
    known_before: Collection[str],
    may_promote: bool,
    actor: str,
    only_gated: bool = False,
) -> Promotion:
    """Move the alias that a job asked for, if the gates hold and nothing forbids it.

    Old classes are those of the version that the alias names, or `known_before` where it names none. With
    `only_gated` a version that no gate applies to moves nothing: nothing has measured it.
    """
    if alias is None:
        return Promotion(None, [])
    before = aliases.named(session, model, alias)
    aliased = None if before is None else before.metrics.get("per_class", {})
    if before is not None:  # also where it is no ancestor: what it does not know is new to who asks for it
        known_before = {entry.name for entry in versions.class_map(session, before.id)}
    report = gates.evaluate(models.gates_of(model), version.metrics, known_before, aliased)
    if only_gated and not report:
        return Promotion(None, [], "no gate applies to this version")
    if not all(gate["holds"] for gate in report):
        return Promotion(None, report, "a gate does not hold")
    refused = aliases.refusal(session, model, version, alias, may_promote=may_promote)
    if refused:
        return Promotion(None, report, refused)
    aliases.move(session, model, alias, version, reason=f"update to version {version.number}", actor=actor)
    return Promotion(alias, report)


def _new_map(session: Session, model: Model, draft: Draft, now: datetime) -> UUID:
    row = FeatureMap(
        id=ids.new(),
        tenant_id=model.tenant_id,
        source=draft.feature_source,
        width=len(next(iter(draft.snapshot.centroids.values())).sum),
        created_at=now,
    )
    session.add(row)
    session.flush()
    alive = set(
        session.scalars(
            select(Dataset.id)
            .where(Dataset.id.in_({shard.dataset_id for shard in draft.shards}), Dataset.deleted_at.is_(None))
            .order_by(Dataset.id)
            .with_for_update()
        )
    )
    for shard in draft.shards:
        if shard.dataset_id in alive:  # features of one that was deleted meanwhile are left to the sweep
            shard.feature_map_id = row.id
            session.add(shard)
    session.flush()
    return row.id


def _class_map(service: Service, session: Session, model: Model, version: Version, draft: Draft) -> None:
    """Classes and their centroids: the base's own row where nothing changed, else a new one."""
    rows = classes.ensure(session, model, draft.snapshot.classes)
    stored: dict[str, UUID] = {}
    fresh = []
    for name, centroid in draft.snapshot.centroids.items():
        shared = draft.base_centroids.get(name)
        if shared is not None and _is_same(shared.centroid, centroid):
            stored[name] = shared.id
            continue
        stored[name] = ids.new()
        sums = centroid.sum.astype("<i8").tobytes()
        fresh.append(
            {
                "id": stored[name],
                "tenant_id": version.tenant_id,
                "created_at": version.created_at,
                "class_id": rows[name].id,
                "feature_map_id": version.feature_map_id,
                "count": centroid.count,
                "ciphertext": service.vault.seal_value(sums, draft.saved.key, stored[name]),
                "key_id": version.key_id,
            }
        )
    if fresh:
        session.execute(sql_insert(CentroidRow), fresh)
    entries = [
        {"version_id": version.id, "class_id": row.id, "centroid_id": stored.get(name)}
        for name, row in rows.items()
    ]
    if entries:  # a regression has no classes
        session.execute(sql_insert(VersionClass), entries)


def _is_same(one: Centroid, other: Centroid) -> bool:
    return one.count == other.count and np.array_equal(one.sum, other.sum)
