"""Where a person is: the rows that targets name, and the versions that used them, in any role."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.services.erasure.ledger import Positions
from app.services.jobs.rows import ACTIVE
from app.tables import (
    Dataset,
    Job,
    JobDataset,
    Model,
    Sample,
    SampleSubject,
    Version,
    VersionClass,
    VersionDataset,
)

AT_ONCE = 1_000  # digests of one query
NAMED = Version.model_id, Version.number, Version.id

Named = tuple[UUID, int, UUID]  # a version: its model, its number, its id


def rows(session: Session, tenant_id: UUID, targets: Iterable[str]) -> dict[UUID, set[int]]:
    """The positions that targets name, by dataset: those of `subject:`, `sample:` and `row:`."""
    named: dict[str, list[str]] = defaultdict(list)
    for target in targets:
        kind, _, rest = target.partition(":")
        named[kind].append(rest)
    found: dict[UUID, set[int]] = defaultdict(set)
    for table, column, kind in (
        (SampleSubject, SampleSubject.subject_digest, "subject"),
        (Sample, Sample.sample_digest, "sample"),
    ):
        query = (
            select(table.dataset_id, table.position)
            .join(Dataset, Dataset.id == table.dataset_id)
            .where(table.tenant_id == tenant_id, ~Dataset.arriving)  # intake looks at the ledger at its end
        )
        for dataset_id, position in _each(session, query, column, named[kind]):
            found[dataset_id].add(position)
    by_dataset: dict[UUID, set[int]] = defaultdict(set)
    for row in named["row"]:
        dataset, _, position = row.partition(":")
        by_dataset[UUID(hex=dataset)].add(int(position))
    there = select(Dataset.id).where(Dataset.tenant_id == tenant_id)  # a restored backup may be older
    for (dataset_id,) in _each(session, there, Dataset.id, list(by_dataset)):
        found[dataset_id] |= by_dataset[dataset_id]
    return dict(found)


def shared(session: Session, rows: Positions, subjects: Collection[str]) -> dict[UUID, set[int]]:
    """Those of the rows that name a person beside these subjects (digests), by dataset."""
    found: dict[UUID, set[int]] = defaultdict(set)
    for dataset_id, positions in rows.items():
        query = select(SampleSubject.position, SampleSubject.subject_digest).where(
            SampleSubject.dataset_id == dataset_id
        )
        for position, digest in _each(session, query, SampleSubject.position, sorted(positions)):
            if digest not in subjects:
                found[dataset_id].add(position)
    return dict(found)


def affected(
    session: Session,
    tenant_id: UUID,
    rows: Positions,
    classes: Collection[UUID],
    models: Collection[UUID] | None,
) -> dict[UUID, list[Version]]:
    """The versions that used such a row or know such a class, by model, oldest first.

    Ready ones, and retired ones while what they stored stands. `models`: only these.
    """
    found = touched(session, tenant_id, rows, classes, models)
    wanted = [id for line in found.values() for id in line]
    versions = {row.id: row for (row,) in _each(session, select(Version), Version.id, wanted)}
    return {model_id: [versions[id] for id in line] for model_id, line in found.items()}


def touched(
    session: Session,
    tenant_id: UUID,
    rows: Positions,
    classes: Collection[UUID],
    models: Collection[UUID] | None,
) -> dict[UUID, list[UUID]]:
    """The ids of the versions that are `affected`."""
    tainted = {*_users(session, tenant_id, rows), *_knowers(session, tenant_id, classes)}
    found: dict[UUID, list[UUID]] = defaultdict(list)
    for model_id, _, id in sorted(tainted):
        if models is None or model_id in models:
            found[model_id].append(id)
    return dict(found)


def learners(
    session: Session, tenant_id: UUID, rows: Positions, models: Collection[UUID] | None
) -> list[UUID]:
    """Models of which a running job reads a dataset with such rows. `models`: only these."""
    query = (
        select(Job.model_id)
        .join(JobDataset, JobDataset.job_id == Job.id)
        .join(Model, Model.id == Job.model_id)
        .where(Job.tenant_id == tenant_id, Job.state.in_(ACTIVE), Model.deleted_at.is_(None))
        .distinct()
    )
    hit = [id for id, positions in rows.items() if positions]
    found = {model_id for (model_id,) in _each(session, query, JobDataset.dataset_id, hit)}
    return sorted(found if models is None else found & set(models))


def _users(session: Session, tenant_id: UUID, rows: Positions) -> Iterator[Named]:
    columns = select(*NAMED, VersionDataset.dataset_id, VersionDataset.left_out)
    query = _standing(columns.join(VersionDataset, VersionDataset.version_id == Version.id), tenant_id)
    for *version, dataset_id, left_out in _each(session, query, VersionDataset.dataset_id, list(rows)):
        if not frozenset(rows[dataset_id]).issubset(left_out):
            yield tuple(version)


def _knowers(session: Session, tenant_id: UUID, classes: Collection[UUID]) -> Iterator[Named]:
    query = select(*NAMED).join(VersionClass, VersionClass.version_id == Version.id)
    for row in _each(session, _standing(query, tenant_id), VersionClass.class_id, list(classes)):
        yield tuple(row)


def _standing(query: Any, tenant_id: UUID) -> Any:
    """Only versions whose files are there, of models that are."""
    stands = or_(Version.state == "ready", and_(Version.state == "retired", Version.purged_at.is_(None)))
    there = query.join(Model, Model.id == Version.model_id)
    return there.where(Version.tenant_id == tenant_id, Model.deleted_at.is_(None), stands)


def _each(session: Session, query: Any, column: Any, values: Sequence[Any]) -> Iterator[Any]:
    """The rows of a query whose column has one of many values."""
    for part in _parts(values):
        yield from session.execute(query.where(column.in_(part)))


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(values), AT_ONCE):
        yield values[at : at + AT_ONCE]
