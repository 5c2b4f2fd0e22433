"""Rows that a restored database names and that are nowhere: counted, and taken out of what used them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import delete, insert, select

from app import ids
from app.db import clock
from app.service import Service
from app.services.datasets import shards
from app.services.erasure import entries, purges
from app.services.models.classes import byte_order
from app.tables import Dataset, ErasedRow, LedgerEntry, Shard

RESTORED = "system:restore"


def settle(service: Service, lost: Iterable[Shard]) -> tuple[int, int]:
    """Forget the shards that are nowhere; how many rows were lost, and how many datasets with all of theirs.

    A dataset of which nothing is left was deleted after the backup, and is deleted again. Features are made
    anew from the rows where these are there.
    """
    by_dataset: dict[UUID, list[Shard]] = defaultdict(list)
    for shard in lost:
        by_dataset[shard.dataset_id].append(shard)
    rows = deleted = 0
    for dataset_id, gone in by_dataset.items():
        _drop_features(service, dataset_id, gone)
        sent = [shard for shard in gone if shard.feature_map_id is None]
        if not sent:
            continue
        if _is_whole(service, dataset_id, sent):
            _delete(service, dataset_id)
            deleted += 1
        else:
            rows += _take_out(service, dataset_id, sent)
    return rows, deleted


def _drop_features(service: Service, dataset_id: UUID, gone: Sequence[Shard]) -> None:
    """Features of a map are there for all rows or for none."""
    maps = {shard.feature_map_id for shard in gone if shard.feature_map_id is not None}
    with service.db.begin() as session:
        rows = session.scalars(
            select(Shard).where(Shard.dataset_id == dataset_id, Shard.feature_map_id.in_(maps))
        ).all()
        session.execute(delete(Shard).where(Shard.id.in_([row.id for row in rows])))
    shards.discard(service, rows)


def _is_whole(service: Service, dataset_id: UUID, gone: Sequence[Shard]) -> bool:
    with service.db.read() as session:
        query = select(Shard.id).where(Shard.dataset_id == dataset_id, Shard.feature_map_id.is_(None))
        return set(session.scalars(query)) == {shard.id for shard in gone}


def _delete(service: Service, dataset_id: UUID) -> None:
    with service.db.begin() as session:
        row = session.get_one(Dataset, dataset_id)
        if row.deleted_at is None:
            row.deleted_at = clock(session)
    purges.purge_dataset(service, dataset_id, lambda _: None)


def _take_out(service: Service, dataset_id: UUID, gone: Sequence[Shard]) -> int:
    """Enter the rows of lost shards into the ledger as gone; how many they were at most."""
    with service.db.begin() as session:
        entries.lock(session)
        dataset = session.get_one(Dataset, dataset_id)
        entry = LedgerEntry(
            tenant_id=dataset.tenant_id,
            request_id=ids.new(),
            kind="lost",
            scope="samples",
            models=None,
            actor=RESTORED,
            created_at=clock(session),
        )
        session.add(entry)
        session.flush()
        positions = [at for one in gone for at in range(one.first, one.first + one.rows)]
        session.execute(
            insert(ErasedRow),
            [
                {
                    "dataset_id": dataset_id,
                    "position": at,
                    "sequence": entry.sequence,
                    "tenant_id": dataset.tenant_id,
                }
                for at in positions
            ],
        )
        session.execute(delete(Shard).where(Shard.id.in_([one.id for one in gone])))
    _count_again(service, dataset_id)
    return len(positions)


def _count_again(service: Service, dataset_id: UUID) -> None:
    """What a dataset says of its rows, from those that are left."""
    train: dict[str, int] = defaultdict(int)
    held_out: dict[str, int] = defaultdict(int)
    splits = [0, 0]
    for block in shards.read(service, dataset_id):
        for split, counts in ((shards.TRAIN, train), (shards.EVAL, held_out)):
            here = block.labels[block.split == split]
            splits[split] += int((block.split == split).sum())
            for label in here[here >= 0]:
                counts[block.names[label]] += 1
    with service.db.begin() as session:
        row = session.get_one(Dataset, dataset_id)
        row.train_rows, row.eval_rows = splits
        row.classes = {
            name: {"train": train[name], "eval": held_out[name]} for name in byte_order({*train, *held_out})
        }
