"""Everything that an erasure touches: rows, datasets, versions in any state, jobs, copies that left.

What a preview shows is what the request's items are made of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, func, or_, select
from sqlalchemy.orm import Session

from app.services.erasure.ledger import Positions
from app.services.forget import locate
from app.services.jobs.rows import DONE
from app.tables import (
    Alias,
    Checkpoint,
    Dataset,
    Export,
    ForgetItem,
    ForgetRequest,
    Job,
    JobDataset,
    SampleSubject,
    Shard,
    Version,
    VersionClass,
    VersionDataset,
)

IN_DATASETS: BindParameter[Any] = bindparam("datasets", expanding=True)
DATASETS = select(Dataset.id, Dataset.deleted_at).where(Dataset.id.in_(IN_DATASETS)).order_by(Dataset.id)
EXPORTS = (
    select(Export)
    .where(
        or_(Export.version_id.in_(bindparam("versions", expanding=True)), Export.dataset_id.in_(IN_DATASETS))
    )
    .order_by(Export.id)
)


@dataclass(frozen=True)
class Touched:
    """A version that used such rows, or knows such a class."""

    version: Version
    roles: Mapping[str, int]  # role -> rows, of either split
    aliases: Sequence[str]


@dataclass(frozen=True)
class Stored:
    """A dataset with such rows, and what is stored of it."""

    dataset: Dataset
    rows: int
    shards: int
    features: int


@dataclass(frozen=True)
class Closure:
    """What an erasure of `rows` touches."""

    rows: Mapping[UUID, frozenset[int]]
    versions: Mapping[UUID, Sequence[Touched]]  # by model, oldest first
    datasets: Sequence[Stored]
    exports: Sequence[Export]
    jobs: Sequence[tuple[Job, bool]] = field(default_factory=tuple)  # and whether it saved a state


def of(
    session: Session,
    tenant_id: UUID,
    rows: Positions,
    classes: Collection[UUID] = (),
    models: Collection[UUID] | None = None,
) -> Closure:
    """All that these rows and classes lead to; `models` limits it to these."""
    plain = {id: frozenset(positions) for id, positions in rows.items() if positions}
    found = locate.affected(session, tenant_id, plain, classes, models)
    names = _aliases(session, found)
    versions = {
        model_id: [
            Touched(version, _roles(session, version, plain), names.get(version.id, [])) for version in line
        ]
        for model_id, line in found.items()
    }
    all_versions = [version.id for line in found.values() for version in line]
    return Closure(
        rows=plain,
        versions=versions,
        datasets=[_stored(session, id, positions) for id, positions in sorted(plain.items())],
        exports=_exports(session, all_versions, plain),
        jobs=_jobs(session, plain, models),
    )


def store(session: Session, request: ForgetRequest, rows: Positions, versions: Iterable[UUID]) -> None:
    """Keep what a request touches beside its models as items: datasets whose rows it takes, and copies that
    left. An item that is there stays as it is."""
    there = select(ForgetItem.kind, ForgetItem.resource_id).filter_by(request_id=request.id)
    known = {(kind, resource_id) for kind, resource_id in session.execute(there)}
    found = items(session, request, rows, versions)
    session.add_all(item for item in found if (item.kind, item.resource_id) not in known)
    session.flush()


def items(
    session: Session, request: ForgetRequest, rows: Positions, versions: Iterable[UUID]
) -> list[ForgetItem]:
    """The items of what a request touches beside its models."""
    taken = [id for id, positions in rows.items() if positions]
    state = "located" if request.models is None else "kept"  # rows stay where only some models must forget
    found: list[tuple[str, UUID, str, dict[str, Any]]] = [
        ("dataset", id, state, {"rows": len(rows[id]), "retained": deleted_at is None})
        for id, deleted_at in session.execute(DATASETS, {"datasets": taken})
    ]
    found += [
        ("export", row.id, "listed", {"recipient": row.recipient, "at": row.created_at.isoformat()})
        for row in _exports(session, list(versions), taken)
    ]
    return [
        ForgetItem(
            request_id=request.id,
            kind=kind,
            resource_id=resource_id,
            tenant_id=request.tenant_id,
            state=item_state,
            job_id=None,
            detail=detail,
        )
        for kind, resource_id, item_state, detail in found
    ]


def datasets_of(session: Session, models: Collection[UUID]) -> set[UUID]:
    """Every dataset that a version of these models used, in any role."""
    query = (
        select(VersionDataset.dataset_id)
        .join(Version, Version.id == VersionDataset.version_id)
        .where(Version.model_id.in_(models))
    )
    return set(session.scalars(query.distinct()))


def without_subject(session: Session, dataset: Dataset) -> int:
    """Rows of a dataset that name nobody."""
    named = select(func.count(SampleSubject.position.distinct())).where(
        SampleSubject.dataset_id == dataset.id
    )
    return max(0, dataset.train_rows + dataset.eval_rows - int(session.scalar(named) or 0))


def centroids(session: Session, versions: Iterable[UUID]) -> int:
    """Stored centroids of these versions; one that several share counts once."""
    counted = select(func.count(VersionClass.centroid_id.distinct()))
    return int(session.scalar(counted.where(VersionClass.version_id.in_(list(versions)))) or 0)


def _roles(session: Session, version: Version, rows: Mapping[UUID, frozenset[int]]) -> dict[str, int]:
    edges = session.scalars(
        select(VersionDataset)
        .where(VersionDataset.version_id == version.id, VersionDataset.dataset_id.in_(rows))
        .order_by(VersionDataset.role)
    )
    roles: dict[str, int] = {}
    for edge in edges:
        if used := len(rows[edge.dataset_id] - frozenset(edge.left_out)):
            roles[edge.role] = roles.get(edge.role, 0) + used
    return roles


def _aliases(session: Session, found: Mapping[UUID, Sequence[Version]]) -> dict[UUID, list[str]]:
    names: dict[UUID, list[str]] = {}
    rows = session.execute(
        select(Alias.version_id, Alias.name).where(Alias.model_id.in_(found)).order_by(Alias.name)
    )
    for version_id, name in rows:
        names.setdefault(version_id, []).append(name)
    return names


def _stored(session: Session, dataset_id: UUID, positions: frozenset[int]) -> Stored:
    shards = session.execute(
        select(Shard.feature_map_id, Shard.first, Shard.rows).where(Shard.dataset_id == dataset_id)
    ).all()
    line = sorted(positions)
    hit = [
        feature_map_id
        for feature_map_id, first, rows in shards
        if bisect_left(line, first) < bisect_left(line, first + rows)
    ]
    as_sent = sum(id is None for id in hit)
    return Stored(session.get_one(Dataset, dataset_id), len(positions), as_sent, len(hit) - as_sent)


def _exports(session: Session, versions: list[UUID], datasets: Iterable[UUID]) -> Sequence[Export]:
    return session.scalars(EXPORTS, {"versions": versions, "datasets": list(datasets)}).all()


def _jobs(
    session: Session, datasets: Iterable[UUID], models: Collection[UUID] | None
) -> list[tuple[Job, bool]]:
    reads = select(JobDataset.job_id).where(JobDataset.dataset_id.in_(list(datasets)))
    query = select(Job).where(Job.id.in_(reads), Job.state.not_in(DONE)).order_by(Job.created_at, Job.id)
    if models is not None:
        query = query.where(Job.model_id.in_(models))
    jobs = session.scalars(query).all()
    saved = set(
        session.scalars(select(Checkpoint.job_id).where(Checkpoint.job_id.in_([job.id for job in jobs])))
    )
    return [(job, job.id in saved) for job in jobs]
