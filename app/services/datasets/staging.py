"""Rows that name a person or a sample, written while a dataset arrives: some thousand a transaction.

One transaction for a million rows would hold the only writer of SQLite for half a minute. So the dataset's
row is there first, marked as arriving: nobody sees or uses it until it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Select, delete, exists, insert, literal, select, update
from sqlalchemy.orm import Session, aliased

from app import ids
from app.db import clock
from app.errors import SubjectErased
from app.service import Service
from app.services.erasure import orphans, purges
from app.services.erasure.ledger import UNDECIDED
from app.tables import (
    Dataset,
    ErasedRow,
    ForgetRequest,
    ForgetTarget,
    LedgerEntry,
    LedgerTarget,
    RestrictedRow,
    Sample,
    SampleSubject,
)

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


def erased(session: Session, tenant_id: UUID) -> dict[str, UUID]:
    """Whom the ledger names for every model and did not lift (`subject:<digest>`, `sample:<digest>`), and the
    newest request that did."""
    rows = session.execute(_erasures(tenant_id).order_by(LedgerEntry.sequence))
    return {target: request_id for target, request_id, _, models in rows if models is None}


def consult(session: Session, tenant_id: UUID, dataset_id: UUID, *, reconsent: bool) -> None:
    """Look at what the rows name once more, in the transaction that makes them visible: ledger and requests
    may have grown since they were first looked at.

    Rows of an erased person raise `SubjectErased` unless consent is renewed; those whom only some models had
    to forget are erased for these. What a request names that waits for its decision is restricted.
    """
    erased: dict[tuple[int, int], None] = {}
    restricted: dict[tuple[int, UUID], None] = {}
    for table, name in (
        (SampleSubject, literal("subject:") + SampleSubject.subject_digest),
        (Sample, literal("sample:") + Sample.sample_digest),
    ):
        mine = table.dataset_id == dataset_id
        for position, request_id, sequence, models in session.execute(
            _erasures(tenant_id, table.position).join(table, LedgerTarget.target == name).where(mine)
        ):
            if models is None and not reconsent:
                raise SubjectErased(
                    "a person or sample was erased while the rows were on their way",
                    related=[ids.forget_path(request_id)],
                )
            if models is not None and not reconsent:
                erased[position, sequence] = None
        for position, request_id in session.execute(
            select(table.position, ForgetTarget.request_id)
            .join(ForgetTarget, ForgetTarget.target == name)
            .join(ForgetRequest, ForgetRequest.id == ForgetTarget.request_id)
            .where(mine, ForgetTarget.tenant_id == tenant_id, ForgetRequest.state.in_(UNDECIDED))
        ):
            restricted[position, request_id] = None
    own = {"dataset_id": dataset_id, "tenant_id": tenant_id}
    if erased:
        rows = [{**own, "position": position, "sequence": sequence} for position, sequence in erased]
        session.execute(insert(ErasedRow), rows)
    if restricted:
        rows = [{**own, "position": position, "request_id": id} for position, id in restricted]
        session.execute(insert(RestrictedRow), rows)


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


def _erasures(tenant_id: UUID, position: Any = LedgerTarget.target) -> Select[Any]:
    """(position or target, request, sequence, models) of every target of an entry that was not lifted."""
    lift = aliased(LedgerEntry)
    is_lifted = exists().where(lift.request_id == LedgerEntry.request_id, lift.kind == "lift")
    return (
        select(position, LedgerEntry.request_id, LedgerEntry.sequence, LedgerEntry.models)
        .select_from(LedgerTarget)
        .join(LedgerEntry, LedgerEntry.sequence == LedgerTarget.sequence)
        .where(LedgerTarget.tenant_id == tenant_id, ~is_lifted)
    )
