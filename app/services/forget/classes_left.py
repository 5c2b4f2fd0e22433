"""Which classes a version would know without rows: as many as it has rows left of.

The labels of rows are in their shards alone. They are read only where a class could lose its last row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Purged
from app.service import Service
from app.services.datasets import row_index, shards
from app.services.erasure.ledger import Positions
from app.tables import Centroid, ModelClass, VersionClass


@dataclass(frozen=True)
class Labels:
    """What located rows say, by dataset; a row that is in neither was not read."""

    learned: Mapping[UUID, Mapping[str, frozenset[int]]] = field(default_factory=dict)  # train rows by label
    silent: Mapping[UUID, frozenset[int]] = field(default_factory=dict)  # of split eval, or without a label


@dataclass(frozen=True)
class Left:
    """The classes of a version after a loss."""

    gone: tuple[str, ...]  # those of which no row is left
    most: int  # classes that are left where the rows that were not read take none
    fewest: int  # those that are left whatever these rows say


def of(
    session: Session, version_id: UUID, used: Positions, lost: Collection[UUID], labels: Labels
) -> Left | None:
    """What is left without the train rows `used` and the classes `lost`; None where there are no classes."""
    known = _counts(session, version_id)
    if not known:
        return None
    said = {id: labels.learned.get(id, {}) for id in used}
    rest = {
        name: count - sum(len(frozenset(rows) & said[id].get(name, frozenset())) for id, rows in used.items())
        for name, (class_id, count) in known.items()
        if class_id not in lost
    }
    there = {name: count for name, count in rest.items() if count > 0}
    unread = sum(
        len(frozenset(rows).difference(labels.silent.get(id, ()), *said[id].values()))
        for id, rows in used.items()
    )
    fewest = len(there)
    for count in sorted(there.values()):
        unread -= count
        if unread < 0:
            break
        fewest -= 1
    return Left(tuple(sorted(known.keys() - there.keys(), key=str.encode)), len(there), fewest)


def read(service: Service, rows: Positions) -> Labels:
    """The labels of these rows, from the shards that hold them; of a deleted dataset from its row index.

    Opens one shard at a time, in no transaction.
    """
    learned, silent = {}, {}
    for id, positions in rows.items():
        by_name = _stored(service, id, frozenset(positions))
        if by_name is None:
            continue
        silent[id] = by_name.pop(None, frozenset())
        learned[id] = {name: found for name, found in by_name.items() if name is not None}
    return Labels(learned, silent)


def _counts(session: Session, version_id: UUID) -> dict[str, tuple[UUID, int]]:
    query = (
        select(ModelClass.name, ModelClass.id, Centroid.count)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .join(Centroid, Centroid.id == VersionClass.centroid_id)
        .where(VersionClass.version_id == version_id)
    )
    return {name: (id, count) for name, id, count in session.execute(query)}


def _stored(
    service: Service, dataset_id: UUID, wanted: frozenset[int]
) -> dict[str | None, frozenset[int]] | None:
    """Positions by label, those that nothing learned from under None; None where nothing tells."""
    found: dict[str | None, set[int]] = {}
    try:
        for block in shards.read(service, dataset_id, near=wanted):
            for at, label, split in zip(
                block.positions.tolist(), block.labels.tolist(), block.split.tolist(), strict=True
            ):
                if at in wanted:
                    learns = split == shards.TRAIN and label >= 0
                    found.setdefault(block.names[label] if learns else None, set()).add(at)
    except Purged:
        index = row_index.any_of(service, dataset_id)
        if index is None:
            return None
        quiet = index.silent(regression=False) & wanted
        told: dict[str | None, frozenset[int]] = {None: quiet}
        return told | {name: frozenset((index.labelled(name) & wanted) - quiet) for name in index.names}
    return {name: frozenset(rows) for name, rows in found.items()}
