"""What a forget request has named, asked at every claim, publication, alias move and export.

A row is (dataset, position). Restricted rows may not be put to new use; erased rows are gone, and what used
one before is tainted. Lifted entries of the ledger count for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session, aliased

from app.tables import ErasedRow, LedgerEntry, RestrictedRow, Version, VersionDataset

Positions = Mapping[UUID, Collection[int]]  # dataset -> positions


def sequence(session: Session) -> int:
    """The number of the newest entry."""
    return int(session.scalar(select(func.max(LedgerEntry.sequence))) or 0)


def unusable(session: Session, datasets: Iterable[UUID]) -> dict[UUID, frozenset[int]]:
    """Positions of each dataset that no new work may use: restricted or erased."""
    wanted = list(datasets)
    found: dict[UUID, set[int]] = {id: set() for id in wanted}
    restricted = select(RestrictedRow.dataset_id, RestrictedRow.position).where(
        RestrictedRow.dataset_id.in_(wanted)
    )
    erased = (
        select(ErasedRow.dataset_id, ErasedRow.position)
        .join(LedgerEntry, LedgerEntry.sequence == ErasedRow.sequence)
        .where(ErasedRow.dataset_id.in_(wanted), ~_lifted())
    )
    for query in (restricted, erased):
        for dataset_id, position in session.execute(query):
            found[dataset_id].add(position)
    return {id: frozenset(positions) for id, positions in found.items()}


def newly_unusable(session: Session, left_out: Positions) -> dict[UUID, frozenset[int]]:
    """What became unusable since `left_out` was read: rows that an outcome must not have used."""
    now = unusable(session, left_out)
    return {id: more for id, positions in now.items() if (more := positions - frozenset(left_out[id]))}


def tainted(session: Session, versions: Iterable[UUID]) -> dict[UUID, int]:
    """Tainted versions among these, and how many entries of the ledger taint each."""
    rows = session.execute(
        select(VersionDataset.version_id, VersionDataset.left_out, ErasedRow.position, ErasedRow.sequence)
        .join(Version, Version.id == VersionDataset.version_id)
        .join(ErasedRow, ErasedRow.dataset_id == VersionDataset.dataset_id)
        .join(LedgerEntry, LedgerEntry.sequence == ErasedRow.sequence)
        .where(
            Version.id.in_(list(versions)),
            ErasedRow.sequence > Version.ledger_sequence,
            ~_lifted(),
        )
    )
    found: dict[UUID, set[int]] = {}
    for version_id, left_out, position, entry in rows:
        if position not in left_out:
            found.setdefault(version_id, set()).add(entry)
    return {id: len(entries) for id, entries in found.items()}


def uses_restricted(session: Session, version_id: UUID) -> bool:
    """Whether the version, or an ancestor, used rows that are restricted now."""
    rows = session.execute(
        select(VersionDataset.left_out, RestrictedRow.position)
        .join(RestrictedRow, RestrictedRow.dataset_id == VersionDataset.dataset_id)
        .where(VersionDataset.version_id == version_id)
    )
    return any(position not in left_out for left_out, position in rows)


def _lifted() -> ColumnElement[bool]:
    lift = aliased(LedgerEntry)
    return exists().where(lift.request_id == LedgerEntry.request_id, lift.kind == "lift")
