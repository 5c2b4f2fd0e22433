"""Which erasures a forget job carries out on its model: taken at its claim, classes located by label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.db import clock, touch
from app.service import Service
from app.services import jobs
from app.services.erasure import entries as ledger_entries
from app.services.erasure import ledger
from app.services.forget import approve, closure, locate, states
from app.services.forget.class_rows import rows_of_class
from app.services.jobs import ClaimedJob
from app.tables import (
    ErasedRow,
    FeatureMap,
    ForgetItem,
    ForgetRequest,
    Job,
    LedgerEntry,
    LedgerTarget,
    ModelClass,
    Version,
    VersionDataset,
)

Gone = Mapping[UUID, frozenset[int]]


@dataclass(frozen=True)
class Entries:
    """The erasures that are carried out, by their number in the ledger."""

    taken: tuple[UUID, ...]  # the requests that the job was queued for
    request_of: Mapping[int, UUID]
    rows: Mapping[int, Gone]
    classes: Mapping[int, Mapping[UUID, str]]  # classes of the model, with their names
    sequence: int  # what a replacement says it has seen of the ledger
    methods: Mapping[UUID, str]  # that requests ask for, by request

    @property
    def all_rows(self) -> dict[UUID, frozenset[int]]:
        """Every row that goes."""
        return united(self.rows.values())

    @property
    def all_classes(self) -> dict[UUID, str]:
        """Every class that goes."""
        return {id: name for found in self.classes.values() for id, name in found.items()}


def take(service: Service, claimed: ClaimedJob) -> Entries:
    """Take what is approved, unlifted and not on hold; rows that are only restricted are not among it."""
    assert claimed.model_id is not None
    with service.db.begin() as session:
        jobs.guard(session, claimed)
        taken = states.take(session, claimed.model_id, claimed.id)
        newest = ledger.sequence(session)
        touch(session)
    for request in taken:
        if request.scope == "class":
            _locate(service, claimed, request)
    with service.db.read() as session:
        return _read(session, claimed.model_id, taken, newest)


def united(parts: Iterable[Gone]) -> dict[UUID, frozenset[int]]:
    """The union, dataset by dataset."""
    found: dict[UUID, frozenset[int]] = {}
    for part in parts:
        for id, positions in part.items():
            found[id] = found.get(id, frozenset()) | positions
    return found


def _locate(service: Service, claimed: ClaimedJob, request: ForgetRequest) -> None:
    """Enter the rows of a request's classes under its entry, and queue what that means for other models."""
    assert claimed.model_id is not None
    assert request.sequence is not None
    with service.db.read() as session:
        names = _classes(session, claimed.model_id, [request.sequence]).get(request.sequence, {})
        datasets = session.scalars(
            select(VersionDataset.dataset_id)
            .join(Version, Version.id == VersionDataset.version_id)
            .where(Version.model_id == claimed.model_id)
            .distinct()
        ).all()
    rows = united(
        {id: frozenset(found) for id, found in rows_of_class(service, datasets, name).items()}
        for name in names.values()
    )
    queued: list[Job] = []
    with service.db.begin() as session:
        ledger_entries.lock(session)
        jobs.guard(session, claimed)
        _enter(session, request, rows)
        if request.models is None:
            queued = _queue_others(service, session, claimed, request, rows)
        touch(session)
    for job in queued:
        service.bell.ring(job.id, job.queue)


def _enter(session: Session, request: ForgetRequest, rows: Gone) -> None:
    """Add rows to the request's entry; what saw the ledger up to now may have used them."""
    session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.sequence == request.sequence)
        .values(located=ledger.sequence(session))
    )
    there = select(ErasedRow.dataset_id, ErasedRow.position).where(ErasedRow.sequence == request.sequence)
    known = {(dataset_id, position) for dataset_id, position in session.execute(there)}
    fresh = [
        {
            "dataset_id": id,
            "position": position,
            "sequence": request.sequence,
            "tenant_id": request.tenant_id,
        }
        for id, positions in rows.items()
        for position in sorted(positions)
        if (id, position) not in known
    ]
    if fresh:
        session.execute(insert(ErasedRow), fresh)
    [row] = states.lock(session, [request.id])
    found = known | {(one["dataset_id"], one["position"]) for one in fresh}
    row.evidence = {**row.evidence, "rows": len(found), "datasets": len({id for id, _ in found})}


def _queue_others(
    service: Service, session: Session, claimed: ClaimedJob, request: ForgetRequest, rows: Gone
) -> list[Job]:
    """Jobs for the other models that used the rows; none for those that the request knows of already."""
    [row] = states.lock(session, [request.id])
    known = select(ForgetItem.resource_id).where(
        ForgetItem.request_id == request.id, ForgetItem.kind == "model"
    )
    has = set(session.scalars(known))
    found = locate.touched(session, request.tenant_id, rows, (), None)
    closure.store(session, row, rows, [id for line in found.values() for id in line])
    learners = locate.learners(session, request.tenant_id, rows, None)
    models = [id for id in dict.fromkeys([*found, *learners]) if id not in has]
    return approve.start(session, row, models, service.settings, actor=f"job:{claimed.id.hex}")


def _read(session: Session, model_id: UUID, taken: Sequence[ForgetRequest], newest: int) -> Entries:
    """Every entry up to the `newest` that the model may not know yet, those on hold aside: what was forgotten
    before its oldest version was made costs nothing."""
    since = _since(session, model_id, taken, newest)
    may_be_new = or_(ledger.entered_since(since), LedgerEntry.scope == "class")
    columns = LedgerEntry.sequence, LedgerEntry.request_id, LedgerEntry.models, LedgerEntry.scope
    there = session.execute(select(*columns).where(may_be_new, *_stands(newest)))
    mine = {entry.sequence: entry for entry in there if ledger.concerns(entry.models, model_id)}
    found: dict[int, dict[UUID, set[int]]] = {}
    for sequence, dataset_id, position in session.execute(_rows(model_id, since, newest)):
        if sequence in mine:
            found.setdefault(sequence, {}).setdefault(dataset_id, set()).add(position)
    named = [sequence for sequence, entry in mine.items() if entry.scope == "class"]
    classes = _classes(session, model_id, named)
    request_of = {sequence: mine[sequence].request_id for sequence in {*found, *classes}}
    held = _held(session, request_of)
    goes = {sequence for sequence in request_of if sequence not in held}
    return Entries(
        tuple(row.id for row in taken),
        {sequence: request_of[sequence] for sequence in goes},
        {s: {id: frozenset(p) for id, p in by.items()} for s, by in found.items() if s in goes},
        {s: names for s, names in classes.items() if s in goes},
        min(held) - 1 if held else newest,
        {row.id: row.method["name"] for row in taken},
    )


def _since(session: Session, model_id: UUID, taken: Iterable[ForgetRequest], newest: int) -> int:
    """What every version of the model that stands has seen of the ledger, and every one of which a network
    is used; what is taken now is newer in any case."""
    stands = Version.model_id == model_id, Version.state != "purged"
    maps = select(FeatureMap.source).join(Version, Version.feature_map_id == FeatureMap.id)
    sources = session.scalars(maps.where(*stands).distinct())
    trained = [UUID(hex=one.removeprefix("version:")) for one in sources if one.startswith("version:")]
    oldest = select(func.min(Version.ledger_sequence)).where(or_(and_(*stands), Version.id.in_(trained)))
    seen = session.scalar(oldest)
    before = (row.sequence - 1 for row in taken if row.sequence is not None)
    return min(newest if seen is None else seen, *before, newest)


def _rows(model_id: UUID, since: int, newest: int) -> Select[int, UUID, int]:
    """The rows of entries that were entered since, of the datasets that the model used."""
    used = (
        select(VersionDataset.dataset_id)
        .join(Version, Version.id == VersionDataset.version_id)
        .where(Version.model_id == model_id)
        .distinct()
    )
    return (
        select(ErasedRow.sequence, ErasedRow.dataset_id, ErasedRow.position)
        .join(LedgerEntry, LedgerEntry.sequence == ErasedRow.sequence)
        .where(ErasedRow.dataset_id.in_(used), ledger.entered_since(since), *_stands(newest))
    )


def _classes(session: Session, model_id: UUID, sequences: Sequence[int]) -> dict[int, dict[UUID, str]]:
    """The classes of the model that entries name, by entry."""
    names = {
        id: name
        for id, name in session.execute(
            select(ModelClass.id, ModelClass.name).where(ModelClass.model_id == model_id)
        )
    }
    found: dict[int, dict[UUID, str]] = {}
    targets = select(LedgerTarget.sequence, LedgerTarget.target).where(
        LedgerTarget.sequence.in_(sequences), LedgerTarget.target.startswith(ledger.CLASS)
    )
    for sequence, target in session.execute(targets):
        id = UUID(hex=target.removeprefix(ledger.CLASS))
        if id in names:
            found.setdefault(sequence, {})[id] = names[id]
    return found


def _held(session: Session, request_of: Mapping[int, UUID]) -> set[int]:
    """Entries whose request is on hold: nothing of them is erased now."""
    now = clock(session)
    query = select(ForgetRequest).where(
        ForgetRequest.hold.is_not(None), ForgetRequest.state.not_in(states.ENDED)
    )
    held = {row.id for row in session.scalars(query) if states.held(row, now)}
    return {sequence for sequence, request_id in request_of.items() if request_id in held}


def _stands(newest: int) -> tuple[ColumnElement[bool], ...]:
    lift = aliased(LedgerEntry)
    lifted = exists().where(lift.request_id == LedgerEntry.request_id, lift.kind == "lift")
    return LedgerEntry.kind == "approve", LedgerEntry.sequence <= newest, ~lifted
