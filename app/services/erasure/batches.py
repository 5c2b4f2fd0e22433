"""What one purge works off: every request of a tenant whose versions are published, and the rows they take.

Rows are (dataset, position). An entry of the ledger that names models takes the rows from these models alone:
as stored rows they stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.erasure.parts import parts
from app.tables import ErasedRow, ForgetRequest, LedgerEntry, LedgerTarget


@dataclass(frozen=True)
class Entry:
    """A line of the ledger, and the requests that it is for: an approved one and those that joined it."""

    sequence: int
    requests: tuple[UUID, ...]
    is_whole: bool  # the stored rows go too, not only what some models made of them
    classes: frozenset[UUID]  # that it erases as a whole


@dataclass(frozen=True)
class Gone:
    """Erased rows of one dataset."""

    positions: NDArray[np.int64]  # (n,), rising; one that several entries name is there as often
    sequences: NDArray[np.int64]  # (n,), the entry of each

    def of(self, sequences: Collection[int]) -> Gone:
        """The rows that these entries take."""
        mine = np.isin(self.sequences, np.fromiter(sequences, np.int64))
        return Gone(self.positions[mine], self.sequences[mine])


@dataclass(frozen=True)
class Batch:
    """Requests that are purged together."""

    tenant_id: UUID
    entries: Mapping[int, Entry]  # by sequence
    rows: Mapping[UUID, Gone]  # by dataset
    sent: frozenset[UUID]  # datasets that were sent again only for these requests

    def everywhere(self) -> dict[UUID, NDArray[np.int64]]:
        """The positions of each dataset that some version had to lose."""
        return {dataset_id: np.unique(gone.positions) for dataset_id, gone in self.rows.items()}

    def stored(self) -> dict[UUID, Gone]:
        """The rows that no longer may be stored at all."""
        whole = [entry.sequence for entry in self.entries.values() if entry.is_whole]
        found = {dataset_id: gone.of(whole) for dataset_id, gone in self.rows.items()}
        return {dataset_id: gone for dataset_id, gone in found.items() if len(gone.positions)}

    def requests(self, sequences: Iterable[int]) -> list[UUID]:
        """The requests of these entries."""
        return [id for sequence in sequences for id in self.entries[sequence].requests]


def read(session: Session, tenant_id: UUID) -> Batch:
    """Every request of the tenant that waits for the purge."""
    waiting = session.execute(
        select(ForgetRequest.id, LedgerEntry.sequence, LedgerEntry.models, ForgetRequest.rows_id)
        .join(LedgerEntry, LedgerEntry.sequence == ForgetRequest.sequence)
        .where(ForgetRequest.tenant_id == tenant_id, ForgetRequest.state == "purging")
        .order_by(LedgerEntry.sequence, ForgetRequest.id)
    ).all()
    requests: dict[int, list[UUID]] = {}
    for row in waiting:
        requests.setdefault(row.sequence, []).append(row.id)
    whole = {row.sequence for row in waiting if row.models is None}
    classes = _classes(session, list(requests))
    entries = {
        at: Entry(at, tuple(mine), at in whole, frozenset(classes.get(at, ())))
        for at, mine in requests.items()
    }
    sent = frozenset(row.rows_id for row in waiting if row.rows_id is not None)
    return Batch(tenant_id, entries, _rows(session, list(entries)), sent)


def _classes(session: Session, sequences: Sequence[int]) -> dict[int, list[UUID]]:
    found: dict[int, list[UUID]] = {}
    for part in parts(sequences):
        query = select(LedgerTarget.sequence, LedgerTarget.target).where(
            LedgerTarget.sequence.in_(part), LedgerTarget.target.startswith("class:")
        )
        for sequence, target in session.execute(query):
            found.setdefault(sequence, []).append(UUID(hex=target.removeprefix("class:")))
    return found


def _rows(session: Session, sequences: Sequence[int]) -> dict[UUID, Gone]:
    found: dict[UUID, list[tuple[int, int]]] = {}
    for part in parts(sequences):
        query = select(ErasedRow.dataset_id, ErasedRow.position, ErasedRow.sequence).where(
            ErasedRow.sequence.in_(part)
        )
        for dataset_id, position, sequence in session.execute(query):
            found.setdefault(dataset_id, []).append((position, sequence))
    return {dataset_id: _gone(rows) for dataset_id, rows in sorted(found.items())}


def _gone(rows: list[tuple[int, int]]) -> Gone:
    table = np.array(sorted(rows), np.int64).reshape(-1, 2)
    return Gone(table[:, 0], table[:, 1])
