"""What a forget request has named, asked at every claim, publication, alias move, export and prediction.

A row is (dataset, position). Restricted rows may not be put to new use; erased rows are gone, and what used
one before is tainted. A class is named by its id, long before its rows are found. A request that names
`models` concerns those and no other; lifted entries of the ledger count for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from app import ids
from app.errors import SubjectRestricted
from app.tables import (
    Dataset,
    ErasedRow,
    ForgetRequest,
    ForgetTarget,
    LedgerEntry,
    LedgerTarget,
    ModelClass,
    RestrictedRow,
    Version,
    VersionClass,
    VersionDataset,
)

Positions = Mapping[UUID, Collection[int]]  # dataset -> positions
UNDECIDED = ("received", "awaiting-approval")  # states of a request that restricts and erases nothing yet
CLASS = "class:"


def sequence(session: Session) -> int:
    """The number of the newest entry."""
    return int(session.scalar(select(func.max(LedgerEntry.sequence))) or 0)


def class_target(class_id: UUID) -> str:
    """How a request and an entry name a class."""
    return f"{CLASS}{class_id.hex}"


def concerns(models: Any | None, model_id: UUID | None) -> bool:
    """Whether a request or entry that names these models (hex; None: all) is about this one."""
    return models is None or model_id is None or model_id.hex in models


def unusable(
    session: Session, datasets: Iterable[UUID], model_id: UUID | None = None
) -> dict[UUID, frozenset[int]]:
    """Positions of each dataset that no new work on the model may use: restricted or erased.

    Without a model, those that any request names. Rows of a restricted class are not among them: nobody has
    located them yet (`classes_out`).
    """
    wanted = list(datasets)
    found: dict[UUID, set[int]] = {id: set() for id in wanted}
    restricted = (
        select(RestrictedRow.dataset_id, RestrictedRow.position, ForgetRequest.models)
        .outerjoin(ForgetRequest, ForgetRequest.id == RestrictedRow.request_id)
        .where(RestrictedRow.dataset_id.in_(wanted))
    )
    erased = (
        select(ErasedRow.dataset_id, ErasedRow.position, LedgerEntry.models)
        .join(LedgerEntry, LedgerEntry.sequence == ErasedRow.sequence)
        .where(ErasedRow.dataset_id.in_(wanted), ~_lifted())
    )
    for query in (restricted, erased):
        for dataset_id, position, models in session.execute(query):
            if concerns(models, model_id):
                found[dataset_id].add(position)
    return {id: frozenset(positions) for id, positions in found.items()}


def newly_unusable(
    session: Session, left_out: Positions, model_id: UUID | None = None
) -> dict[UUID, frozenset[int]]:
    """What became unusable since `left_out` was read: rows that an outcome must not have used."""
    now = unusable(session, left_out, model_id)
    return {id: more for id, positions in now.items() if (more := positions - frozenset(left_out[id]))}


def classes_out(session: Session, model_id: UUID) -> dict[str, datetime | None]:
    """Names of the model's classes that nothing may learn: when they were erased, None while a request that
    names one waits for its decision."""
    restricted = _restricted_classes(session, model_id)
    erased: dict[UUID, datetime] = {}
    for class_id, entry in _class_entries(session):
        if concerns(entry.models, model_id):
            erased[class_id] = min(entry.created_at, erased.get(class_id, entry.created_at))
    named = select(ModelClass.id, ModelClass.name).where(
        ModelClass.model_id == model_id, ModelClass.id.in_({*restricted, *erased})
    )
    return {name: erased.get(id) for id, name in session.execute(named)}


def newly_out(
    session: Session, model_id: UUID, known: Collection[str], datasets: Iterable[UUID]
) -> frozenset[str]:
    """Classes that nothing may learn, are not among the `known` ones, and have rows in these datasets."""
    if not (fresh := classes_out(session, model_id).keys() - set(known)):
        return frozenset()
    labels: set[str] = set()
    for found in session.scalars(select(Dataset.classes).where(Dataset.id.in_(list(datasets)))):
        labels |= found.keys()
    return frozenset(fresh & labels)


def erased_classes(session: Session, model_id: UUID, classes: Collection[UUID]) -> set[UUID]:
    """Those of a model's classes that an approved request names: never predicted from then on."""
    return {id for id, entry in _class_entries(session) if id in classes and concerns(entry.models, model_id)}


def tainted(session: Session, versions: Iterable[UUID]) -> dict[UUID, int]:
    """Tainted versions among these, and how many entries of the ledger taint each."""
    return {id: len(entries) for id, entries in taints(session, versions).items()}


def taints(session: Session, versions: Iterable[UUID]) -> dict[UUID, set[int]]:
    """Tainted versions among these, and the sequences of the entries that taint each: newer than the version
    (or with rows that were located since), about its model, and naming a row that it used in any role, or a
    class that it knows."""
    rows = session.execute(
        select(Version.id, Version.model_id, Version.ledger_sequence).where(Version.id.in_(list(versions)))
    ).all()
    made = {id: (model_id, at) for id, model_id, at in rows}
    if not made or not _is_news(session, min(at for _, at in made.values())):
        return {}
    found: dict[UUID, set[int]] = {}
    _taint_by_rows(session, made, found)
    _taint_by_classes(session, made, found)
    return found


def entered_since(at: int | SQLColumnExpression[int]) -> ColumnElement[bool]:
    """Of an entry: whether rows of it may be unknown to what saw the ledger up to `at`. Those of a class are
    entered late, under its number; what was made just before or after is told by what it left out."""
    return or_(LedgerEntry.sequence > at, LedgerEntry.located >= at)


def restricting(session: Session, version_id: UUID) -> UUID | None:
    """A request that restricts rows which the version, or an ancestor, used; None: no row is restricted."""
    version = session.get_one(Version, version_id)
    datasets = select(VersionDataset.dataset_id).where(VersionDataset.version_id == version_id)
    rows = session.execute(
        select(
            RestrictedRow.dataset_id, RestrictedRow.position, RestrictedRow.request_id, ForgetRequest.models
        )
        .outerjoin(ForgetRequest, ForgetRequest.id == RestrictedRow.request_id)
        .where(RestrictedRow.dataset_id.in_(datasets))
    ).all()
    left_out = _left_out(session, {version_id}, {row.dataset_id for row in rows}) if rows else {}
    request_id: UUID
    for dataset_id, position, request_id, models in rows:
        if concerns(models, version.model_id) and any(
            position not in unused for unused in left_out[version_id, dataset_id]
        ):
            return request_id
    classes = _restricted_classes(session, version.model_id)
    known = select(VersionClass.class_id).where(
        VersionClass.version_id == version_id, VersionClass.class_id.in_(classes)
    )
    found = session.scalar(known.limit(1)) if classes else None
    return None if found is None else classes[found]


def refuse_restricted(session: Session, version: Version, pointer: str | None = None) -> None:
    """Raise `SubjectRestricted` for a version of which a request restricts rows; names one such request."""
    request_id = restricting(session, version.id)
    if request_id is not None:
        raise SubjectRestricted(
            f"version {version.number} used rows that {ids.encode('fgt', request_id)} restricts until it is "
            "decided, or ends",
            pointer=pointer,
            related=[ids.forget_path(request_id)],
        )


Made = Mapping[UUID, tuple[UUID, int]]  # version -> its model, and the ledger when its rows were chosen


def _is_news(session: Session, at: int) -> bool:
    """Whether an entry, or rows of one, came after `at`."""
    return session.scalar(select(LedgerEntry.sequence).where(entered_since(at)).limit(1)) is not None


def _taint_by_rows(session: Session, made: Made, found: dict[UUID, set[int]]) -> None:
    edges = session.execute(
        select(VersionDataset.version_id, VersionDataset.dataset_id)
        .where(VersionDataset.version_id.in_(made))
        .distinct()
    ).all()
    oldest = min(at for _, at in made.values())
    erased: dict[UUID, dict[int, set[int]]] = {}  # dataset -> entry -> positions
    scopes: dict[int, Any] = {}
    newest: dict[int, int] = {}  # entry -> the newest version, by what it saw of the ledger, that may use it
    rows = session.execute(
        select(
            ErasedRow.dataset_id,
            ErasedRow.position,
            ErasedRow.sequence,
            LedgerEntry.models,
            LedgerEntry.located,
        )
        .join(LedgerEntry, LedgerEntry.sequence == ErasedRow.sequence)
        .where(
            ErasedRow.dataset_id.in_({dataset_id for _, dataset_id in edges}),
            entered_since(oldest),
            ~_lifted(),
        )
    )
    for dataset_id, position, entry, models, located in rows:
        erased.setdefault(dataset_id, {}).setdefault(entry, set()).add(position)
        scopes[entry] = models
        newest[entry] = entry - 1 if located is None else located
    hit = {(version_id, dataset_id) for version_id, dataset_id in edges if dataset_id in erased}
    left_out = _left_out(session, {version_id for version_id, _ in hit}, erased.keys()) if hit else {}
    for version_id, dataset_id in hit:
        model_id, at = made[version_id]
        for entry, positions in erased[dataset_id].items():
            if (
                newest[entry] >= at
                and concerns(scopes[entry], model_id)
                and any(positions - unused for unused in left_out[version_id, dataset_id])
            ):
                found.setdefault(version_id, set()).add(entry)


def _taint_by_classes(session: Session, made: Made, found: dict[UUID, set[int]]) -> None:
    entries = list(_class_entries(session, after=min(at for _, at in made.values())))
    if not entries:
        return
    known = session.execute(
        select(VersionClass.version_id, VersionClass.class_id).where(
            VersionClass.version_id.in_(made), VersionClass.class_id.in_({id for id, _ in entries})
        )
    )
    for version_id, class_id in known:
        model_id, at = made[version_id]
        for id, entry in entries:
            if id == class_id and entry.sequence > at and concerns(entry.models, model_id):
                found.setdefault(version_id, set()).add(entry.sequence)


def _left_out(
    session: Session, versions: Collection[UUID], datasets: Collection[UUID]
) -> dict[tuple[UUID, UUID], list[frozenset[int]]]:
    """(version, dataset) -> the positions that each role left out."""
    edges = session.execute(
        select(VersionDataset.version_id, VersionDataset.dataset_id, VersionDataset.left_out).where(
            VersionDataset.version_id.in_(versions), VersionDataset.dataset_id.in_(datasets)
        )
    )
    found: dict[tuple[UUID, UUID], list[frozenset[int]]] = {}
    for version_id, dataset_id, left_out in edges:
        found.setdefault((version_id, dataset_id), []).append(frozenset(left_out))
    return found


def _class_entries(session: Session, after: int = 0) -> Iterable[tuple[UUID, LedgerEntry]]:
    """Every class that an unlifted entry names, with the entry."""
    rows = session.execute(
        select(LedgerTarget.target, LedgerEntry)
        .join(LedgerEntry, LedgerEntry.sequence == LedgerTarget.sequence)
        .where(
            LedgerEntry.scope == "class",
            LedgerEntry.kind == "approve",
            LedgerEntry.sequence > after,
            ~_lifted(),
        )
    )
    return [(UUID(hex=target.removeprefix(CLASS)), entry) for target, entry in rows]


def _restricted_classes(session: Session, model_id: UUID) -> dict[UUID, UUID]:
    """Classes that a request names which nobody has decided, and that request."""
    rows = session.execute(
        select(ForgetTarget.target, ForgetRequest.id, ForgetRequest.models)
        .join(ForgetRequest, ForgetRequest.id == ForgetTarget.request_id)
        .where(ForgetRequest.scope == "class", ForgetRequest.state.in_(UNDECIDED))
    )
    return {UUID(hex=t.removeprefix(CLASS)): id for t, id, models in rows if concerns(models, model_id)}


def _lifted() -> ColumnElement[bool]:
    lift = aliased(LedgerEntry)
    return exists().where(lift.request_id == LedgerEntry.request_id, lift.kind == "lift")
