"""Rows that a restored database names and that are nowhere: counted, and taken out of what used them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.service import Service
from app.services.datasets import shards
from app.services.erasure import entries, purges
from app.services.forget import approve
from app.services.models.classes import byte_order
from app.tables import Dataset, ForgetRequest, ForgetTarget, Shard

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
    """Ask for the rows of lost shards to be forgotten, and approve it; how many they were at most."""
    positions = [at for one in gone for at in range(one.first, one.first + one.rows)]
    with service.db.begin() as session:
        entries.lock(session)
        dataset = session.get_one(Dataset, dataset_id)
        session.execute(delete(Shard).where(Shard.id.in_([one.id for one in gone])))
        targets = [f"row:{dataset_id.hex}:{at}" for at in positions]
        request = add_request(session, dataset.tenant_id, ids.new(), clock(session), "samples", targets)
        request.external_id = "rows that a restored backup names and nobody has"
        approve.carry_out(service, session, request, RESTORED)
        touch(session)
    _count_again(service, dataset_id)
    return len(positions)


def add_request(
    session: Session,
    tenant_id: UUID,
    id: UUID,
    at: datetime,
    scope: str,
    targets: Sequence[str],
    shared_rows: str = "erase",
) -> ForgetRequest:
    """A request that waits for its approval, made by a restore."""
    request = ForgetRequest(
        id=id,
        created_at=at,
        tenant_id=tenant_id,
        scope=scope,
        persons=len(targets),
        shared_rows=shared_rows,
        models=None,
        method={"name": "auto", "params": {}},
        accept="exact",
        submitted_at=at,
        due_at=at,
        state="awaiting-approval",
        creator=RESTORED,
        stages={},
        evidence={},
        exceptions=[],
    )
    session.add(request)
    session.flush()
    session.add_all(
        ForgetTarget(request_id=id, person=person, target=target, tenant_id=tenant_id)
        for person, target in enumerate(targets)
    )
    session.flush()
    return request


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
