"""Rows of a class: no table says which they are, so the labels in the shards do."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select

from app.errors import Purged
from app.service import Service
from app.services.datasets import shards
from app.tables import Dataset


def rows_of_class(service: Service, dataset_ids: Iterable[UUID], name: str) -> dict[UUID, set[int]]:
    """Positions of the rows with this label, of either split, in each dataset that has some.

    Opens every shard of the datasets whose counts name the label, one at a time, in no transaction. A dataset
    that was deleted has none.
    """
    with service.db.read() as session:
        found = session.execute(
            select(Dataset.id, Dataset.classes).where(
                Dataset.id.in_(set(dataset_ids)), Dataset.deleted_at.is_(None)
            )
        ).all()
    positions = {id: _labelled(service, id, name) for id, classes in found if name in classes}
    return {id: rows for id, rows in positions.items() if rows}


def _labelled(service: Service, dataset_id: UUID, name: str) -> set[int]:
    rows: set[int] = set()
    try:
        for block in shards.read(service, dataset_id):
            at = block.names.index(name) if name in block.names else len(block.names)
            rows.update(block.positions[block.labels == at].tolist())
    except Purged:
        return set()
    return rows
