"""Rows of a class: no table says which they are, so the labels in the shards do."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select

from app.errors import Purged
from app.service import Service
from app.services.datasets import row_index, shards
from app.tables import Dataset


def rows_of_class(service: Service, dataset_ids: Iterable[UUID], name: str) -> dict[UUID, set[int]]:
    """Positions of the rows with this label, of either split, in each dataset that has some.

    Opens every shard of the datasets whose counts name the label, one at a time, in no transaction; of a
    deleted one its row index, where it has one.
    """
    with service.db.read() as session:
        found = session.execute(
            select(Dataset.id, Dataset.classes, Dataset.deleted_at).where(Dataset.id.in_(set(dataset_ids)))
        ).all()
    positions = {}
    for id, classes, deleted_at in found:
        if deleted_at is not None:
            index = row_index.any_of(service, id)
            positions[id] = index.labelled(name) if index else set()
        elif name in classes:
            positions[id] = _labelled(service, id, name)
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
