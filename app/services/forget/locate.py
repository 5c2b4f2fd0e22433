"""Where a person is: the rows that targets name, and the versions that used them, in any role."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, and_, bindparam, or_, select
from sqlalchemy.orm import Session

from app.services.erasure.ledger import Positions
from app.services.erasure.parts import parts
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


# Each is asked at every request: built once, it costs a fraction of what building it does.
WHOSE: BindParameter[Any] = bindparam("whose")
ANY: BindParameter[Any] = bindparam("any", expanding=True)


def _naming(table: type[Sample] | type[SampleSubject], digest: Any) -> Any:
    """Rows by digest; intake looks at the ledger at its end."""
    query = select(table.dataset_id, table.position).join(Dataset, Dataset.id == table.dataset_id)
    return query.where(table.tenant_id == WHOSE, ~Dataset.arriving, digest.in_(ANY))


def _standing(query: Any) -> Any:
    """Only versions whose files are there, of models that are."""
    stands = or_(Version.state == "ready", and_(Version.state == "retired", Version.purged_at.is_(None)))
    there = query.join(Model, Model.id == Version.model_id)
    return there.where(Version.tenant_id == WHOSE, Model.deleted_at.is_(None), stands)


NAMING = {
    "subject": _naming(SampleSubject, SampleSubject.subject_digest),
    "sample": _naming(Sample, Sample.sample_digest),
}
THERE = select(Dataset.id).where(
    Dataset.tenant_id == WHOSE, Dataset.id.in_(ANY)
)  # a restored backup is older
OTHERS = select(SampleSubject.position, SampleSubject.subject_digest).where(
    SampleSubject.dataset_id == WHOSE, SampleSubject.position.in_(ANY)
)
VERSIONS = select(Version).where(Version.tenant_id == WHOSE, Version.id.in_(ANY))
USING = _standing(
    select(*NAMED, VersionDataset.dataset_id, VersionDataset.left_out)
    .join(VersionDataset, VersionDataset.version_id == Version.id)
    .where(VersionDataset.dataset_id.in_(ANY))
)
KNOWING = _standing(
    select(*NAMED)
    .join(VersionClass, VersionClass.version_id == Version.id)
    .where(VersionClass.class_id.in_(ANY))
)
LEARNING = (
    select(Job.model_id)
    .join(JobDataset, JobDataset.job_id == Job.id)
    .join(Model, Model.id == Job.model_id)
    .where(
        Job.tenant_id == WHOSE,
        Job.state.in_(ACTIVE),
        Model.deleted_at.is_(None),
        JobDataset.dataset_id.in_(ANY),
    )
    .distinct()
)


def rows(session: Session, tenant_id: UUID, targets: Iterable[str]) -> dict[UUID, set[int]]:
    """The positions that targets name, by dataset: those of `subject:`, `sample:` and `row:`."""
    named: dict[str, list[str]] = defaultdict(list)
    for target in targets:
        kind, _, rest = target.partition(":")
        named[kind].append(rest)
    found: dict[UUID, set[int]] = defaultdict(set)
    for kind, query in NAMING.items():
        for dataset_id, position in _each(session, query, tenant_id, named[kind]):
            found[dataset_id].add(position)
    by_dataset: dict[UUID, set[int]] = defaultdict(set)
    for row in named["row"]:
        dataset, _, position = row.partition(":")
        by_dataset[UUID(hex=dataset)].add(int(position))
    for (dataset_id,) in _each(session, THERE, tenant_id, list(by_dataset)):
        found[dataset_id] |= by_dataset[dataset_id]
    return dict(found)


def shared(session: Session, rows: Positions, subjects: Collection[str]) -> dict[UUID, set[int]]:
    """Those of the rows that name a person beside these subjects (digests), by dataset."""
    found: dict[UUID, set[int]] = defaultdict(set)
    for dataset_id, positions in rows.items():
        for position, digest in _each(session, OTHERS, dataset_id, sorted(positions)):
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
    versions = {row.id: row for (row,) in _each(session, VERSIONS, tenant_id, wanted)}
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
    hit = [id for id, positions in rows.items() if positions]
    found = {model_id for (model_id,) in _each(session, LEARNING, tenant_id, hit)}
    return sorted(found if models is None else found & set(models))


def _users(session: Session, tenant_id: UUID, rows: Positions) -> Iterator[Named]:
    for *version, dataset_id, left_out in _each(session, USING, tenant_id, list(rows)):
        if not frozenset(rows[dataset_id]).issubset(left_out):
            yield tuple(version)


def _knowers(session: Session, tenant_id: UUID, classes: Collection[UUID]) -> Iterator[Named]:
    for row in _each(session, KNOWING, tenant_id, list(classes)):
        yield tuple(row)


def _each(session: Session, query: Any, whose: UUID, values: Sequence[Any]) -> Iterator[Any]:
    """The rows of a query for many values of `ANY`; `whose` are they."""
    for part in parts(values, AT_ONCE):
        yield from session.execute(query, {"whose": whose, "any": part})
