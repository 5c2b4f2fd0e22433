"""Rows that name a person or a sample, written while a dataset arrives: some thousand a transaction.

One transaction for a million rows would hold the only writer of SQLite for half a minute. So the dataset's
row is there first, marked as arriving: nobody sees or uses it until it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Select, delete, exists, insert, select, update
from sqlalchemy.orm import Session, aliased

from app.db import clock
from app.errors import SubjectErased
from app.service import Service
from app.services.erasure import orphans, purges
from app.tables import Dataset, LedgerEntry, LedgerTarget, Sample, SampleSubject

if TYPE_CHECKING:  # the scheduler sweeps here and needs no parser
    from app.intake.clean import Rows

STAGED = 5_000  # rows of one transaction

Named = tuple[int, str | None, list[str]]  # position, sample digest, subject digests


def named(rows: Rows) -> Iterator[list[Named]]:
    """The rows that carry a sample id or a subject, in parts of a transaction each."""
    part: list[Named] = []
    for at, position in enumerate(rows.positions.tolist() if rows.samples or rows.subjects else ()):
        sample = rows.samples[at] if rows.samples else None
        persons = list(rows.subjects[at]) if rows.subjects else []
        if sample or persons:
            part.append((position, sample, persons))
        if len(part) == STAGED:
            yield part
            part = []
    if part:
        yield part


def stage(session: Session, tenant_id: UUID, dataset_id: UUID, part: list[Named]) -> None:
    """Insert the samples and subjects of some rows."""
    mine = {"dataset_id": dataset_id, "tenant_id": tenant_id}
    samples = [{**mine, "position": at, "sample_digest": sample} for at, sample, _ in part]
    rows = session.connection()  # past the ORM, in two thirds of the time
    rows.execute(insert(Sample), samples)
    persons = [{**mine, "position": at, "subject_digest": one} for at, _, all in part for one in all]
    if persons:
        rows.execute(insert(SampleSubject), persons)


def erased(session: Session, tenant_id: UUID) -> frozenset[str]:
    """Everything that the ledger names and did not lift: `subject:<digest>`, `sample:<digest>`."""
    return frozenset(session.scalars(_erasures(tenant_id)))


def refuse_erased(session: Session, tenant_id: UUID, dataset_id: UUID) -> None:
    """Raise for rows that the ledger names now; it may have grown since they were first looked at."""
    for table, kind, digest in (
        (SampleSubject, "subject:", SampleSubject.subject_digest),
        (Sample, "sample:", Sample.sample_digest),
    ):
        hit = _erasures(tenant_id).where(LedgerTarget.target == kind + digest).exists()
        query: Select[Any] = select(table.position).where(table.dataset_id == dataset_id, hit)
        if session.scalar(query.limit(1)) is not None:
            raise SubjectErased("a person or sample was erased while the rows were on their way")


def remove(service: Service, dataset_id: UUID) -> None:
    """Take an arriving dataset out of the tables; one that was published meanwhile stays."""
    given_up = update(Dataset).where(Dataset.id == dataset_id, Dataset.arriving).values(arriving=False)
    with service.db.begin() as session:
        if session.scalar(given_up.returning(Dataset.id)) is None:
            return
    purges.remove_samples(service, dataset_id)
    with service.db.begin() as session:
        session.execute(delete(Dataset).where(Dataset.id == dataset_id))


def sweep(service: Service) -> int:
    """Remove what killed processes left of datasets on their way; returns how many."""
    with service.db.read() as session:
        old = clock(session) - timedelta(seconds=orphans.age(session, service.settings.jobs.orphan_seconds))
        left = session.scalars(select(Dataset.id).where(Dataset.arriving, Dataset.created_at < old)).all()
    for dataset_id in left:
        remove(service, dataset_id)
    return len(left)


def _erasures(tenant_id: UUID) -> Select[Any]:
    lift = aliased(LedgerEntry)
    is_lifted = exists().where(lift.request_id == LedgerEntry.request_id, lift.kind == "lift")
    return (
        select(LedgerTarget.target)
        .join(LedgerEntry, LedgerEntry.sequence == LedgerTarget.sequence)
        .where(LedgerTarget.tenant_id == tenant_id, ~is_lifted)
    )
