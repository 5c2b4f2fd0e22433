"""Shards: some thousand rows of a dataset in one encrypted file under a key of its own.

A file is safetensors. As sent: `positions` int64, `x` float32 or uint8, `label` int32 (an index into the
metadata `classes`, -1 for none), `split` uint8 (0 train, 1 eval), `target` float64 where there are targets.
On the grid of a feature map: `positions` and `x` int16.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, Purged
from app.service import Service
from app.services.datasets.shard_files import Arrays, dump, parse
from app.services.models.classes import byte_order
from app.tables import Dataset, Shard
from app.vault import new_key

TRAIN, EVAL = 0, 1


@dataclass(frozen=True)
class Block:
    """Rows of one shard. A grid shard holds features only: its labels are those of the shard as sent."""

    positions: NDArray[np.int64]  # (b,), rising
    x: NDArray[Any]  # (b, ...) float32 or uint8 as sent, (b, width) int16 on a grid
    labels: NDArray[np.int32]  # (b,), indices into `names`, -1 for none
    names: tuple[str, ...]  # every label key of the dataset, in the order of UTF-8 bytes
    split: NDArray[np.uint8]  # (b,), 0 train, 1 eval
    targets: NDArray[np.float64] | None
    shard_id: UUID
    clipped: int = 0  # values that the grid cut off

    def __len__(self) -> int:
        return len(self.positions)

    def says(self, *, targets: bool) -> NDArray[np.bool_]:
        """(b,) whether a row says what it is: its target, or otherwise its label."""
        if targets:
            return np.full(len(self), self.targets is not None)
        return self.labels >= 0

    def pick(self, rows: NDArray[Any]) -> Block:
        """The rows of a mask or of indices."""
        return Block(
            positions=self.positions[rows],
            x=self.x[rows],
            labels=self.labels[rows],
            names=self.names,
            split=self.split[rows],
            targets=None if self.targets is None else self.targets[rows],
            shard_id=self.shard_id,
            clipped=self.clipped,
        )


def write(
    service: Service,
    *,
    tenant_id: UUID,
    dataset_id: UUID,
    positions: NDArray[np.int64],
    x: NDArray[Any],
    labels: NDArray[np.int32],
    names: Sequence[str],
    split: NDArray[np.uint8],
    targets: NDArray[np.float64] | None,
) -> Shard:
    """Store rows as sent. The row it returns is not in a session: the caller commits it."""
    used = np.unique(labels[labels >= 0])
    local = np.where(labels >= 0, np.searchsorted(used, labels), -1).astype(np.int32)
    arrays: dict[str, NDArray[Any]] = {"positions": positions, "x": x, "label": local, "split": split}
    if targets is not None:
        arrays["target"] = targets
    metadata = {"classes": json.dumps([names[i] for i in used], ensure_ascii=False)}
    return _seal(service, tenant_id, dataset_id, None, arrays, metadata, clipped=0)


def write_grid(
    service: Service,
    *,
    tenant_id: UUID,
    dataset_id: UUID,
    feature_map_id: UUID | None,
    parts: Iterable[tuple[NDArray[np.int64], NDArray[np.int16], int]],
) -> list[Shard]:
    """Store features on the grid: (positions, rows, clipped values) of each shard as sent, in order.

    The rows it returns are in no session: the caller gives them their map and commits all or none. On any
    failure nothing stays.
    """
    written: list[Shard] = []
    try:
        for positions, x, clipped in parts:
            if len(positions):
                arrays: dict[str, NDArray[Any]] = {"positions": positions, "x": x}
                written.append(_seal(service, tenant_id, dataset_id, feature_map_id, arrays, {}, clipped))
    except BaseException:
        discard(service, written)
        raise
    return written


def discard(service: Service, shards: Iterable[Shard]) -> None:
    """Destroy what was written and will not be committed."""
    for shard in shards:
        service.vault.destroy(shard.key_id, shard.file_id)


def read(
    service: Service,
    dataset_id: UUID,
    feature_map_id: UUID | None = None,
    *,
    split: int | None = None,
    leave_out: Iterable[int] = (),
    near: Collection[int] | None = None,
    made: Sequence[Shard] | None = None,
    though_deleted: bool = False,
) -> Iterator[Block]:
    """Rows of a dataset in the order of their positions, one shard at a time.

    `split` keeps one of the two; `leave_out` are positions that are not wanted. With `near` only shards
    that hold one of these positions are opened, each whole. With a feature map the features come from its
    shards, there are none of a map that the dataset was never put through; with `made` from those, which no
    row names yet. Raises `Purged` for a deleted dataset; `though_deleted` reads what is there of it still.
    """
    with service.db.read() as session:
        dataset = session.get(Dataset, dataset_id)
        if dataset is None or (dataset.deleted_at is not None and not though_deleted):
            raise Purged("the dataset was deleted")
        names = byte_order(dataset.classes)
        shards = _of(session, dataset_id, None)
        grid = _of(session, dataset_id, feature_map_id) if feature_map_id and made is None else made
    features = None if grid is None else _by_shard(shards, grid)
    unwanted = np.fromiter(leave_out, dtype=np.int64)
    wanted = None if near is None else np.array(sorted(near), dtype=np.int64)
    for shard in shards:
        if wanted is not None and not _holds(shard, wanted):
            continue
        if features is not None and shard.id not in features:
            if len(unwanted) and _none_but(shard, unwanted):
                continue  # rows that nobody may use were not put through the network
            raise ArtifactCorrupt("features of a dataset are missing")
        block = _block(service, shard, names, features[shard.id] if features is not None else None)
        if block is None:
            continue
        kept = np.ones(len(block), dtype=bool) if split is None else block.split == split
        if len(unwanted):
            kept &= ~np.isin(block.positions, unwanted)
        if kept.any():
            yield block if kept.all() else block.pick(kept)


def label_index(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """For each label key of a dataset its index in `wanted`, -1 where it is not there.

    `label_index(block.names, classes)[block.labels]` are the labels of a block in the model's order, for
    rows that have one.
    """
    place = {name: i for i, name in enumerate(wanted)}
    return np.array([place.get(name, -1) for name in names], dtype=np.int64)


def has_map(service: Service, dataset_id: UUID, feature_map_id: UUID) -> bool:
    """Whether the dataset's features in this map are stored."""
    with service.db.read() as session:
        query = select(Shard.id).filter_by(dataset_id=dataset_id, feature_map_id=feature_map_id).limit(1)
        return session.scalar(query) is not None


def _holds(shard: Shard, wanted: NDArray[np.int64]) -> bool:
    """Whether one of the rising positions lies in the range of a shard."""
    at = int(np.searchsorted(wanted, shard.first))
    return at < len(wanted) and int(wanted[at]) < shard.first + shard.rows


def _none_but(shard: Shard, unwanted: NDArray[np.int64]) -> bool:
    """Whether every position in the range of a shard is unwanted."""
    return bool(np.isin(np.arange(shard.first, shard.first + shard.rows), unwanted).all())


def _of(session: Any, dataset_id: UUID, feature_map_id: UUID | None) -> Sequence[Shard]:
    query = select(Shard).filter_by(dataset_id=dataset_id, feature_map_id=feature_map_id)
    found: Sequence[Shard] = session.scalars(query.order_by(Shard.first)).all()
    return found


def _by_shard(shards: Sequence[Shard], grid: Sequence[Shard]) -> dict[UUID, Shard]:
    """For each shard as sent the one with its features: where an erasure came between, it starts later."""
    starts = [shard.first for shard in shards]
    return {shards[bisect_right(starts, one.first) - 1].id: one for one in grid}


def _block(service: Service, shard: Shard, names: tuple[str, ...], grid: Shard | None) -> Block | None:
    """The rows of a shard; None where an erasure took all of them away meanwhile."""
    raw = _open(service, shard)
    if raw is None:
        return None
    arrays, metadata = raw
    positions, x, clipped = arrays["positions"], arrays["x"], 0
    if grid is not None:
        features = _open(service, grid)
        if features is None:
            return None
        at = features[0]["positions"]
        _, mine, theirs = np.intersect1d(positions, at, assume_unique=True, return_indices=True)
        arrays = {name: values[mine] for name, values in arrays.items()}
        positions, x, clipped = at[theirs], features[0]["x"][theirs], grid.clipped
    index = label_index(json.loads(metadata["classes"]), names).astype(np.int32)
    labels = arrays["label"]
    return Block(
        positions=positions,
        x=x,
        labels=np.where(labels >= 0, index[labels], -1).astype(np.int32) if len(index) else labels,
        names=names,
        split=arrays["split"],
        targets=arrays.get("target"),
        shard_id=shard.id,
        clipped=clipped,
    )


def _open(service: Service, shard: Shard) -> tuple[dict[str, NDArray[Any]], dict[str, str]] | None:
    """The arrays of a shard. Where its file or key is gone, the row is read again: it may have been
    rewritten since; only if what it names now is gone too is it damaged."""
    try:
        return _load(service, shard)
    except ArtifactCorrupt:
        with service.db.read() as session:
            now = session.get(Shard, shard.id)
        if now is None:
            with service.db.read() as session:
                dataset = session.get(Dataset, shard.dataset_id)
            if dataset is None or dataset.deleted_at is not None:
                raise Purged("the dataset was deleted") from None
            return None
        if now.file_id == shard.file_id:
            raise
        return _load(service, now)


def _load(service: Service, shard: Shard) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    return parse(service.vault.open(shard.file_id, service.vault.key(shard.key_id)))


def _seal(
    service: Service,
    tenant_id: UUID,
    dataset_id: UUID,
    feature_map_id: UUID | None,
    arrays: Arrays,
    metadata: dict[str, str],
    clipped: int,
) -> Shard:
    first, last = int(arrays["positions"][0]), int(arrays["positions"][-1])
    file_id, key_id = ids.new(), ids.new()
    try:
        key = service.vault.seal(file_id, dump(arrays, metadata), new_key())
        service.vault.write_key(key_id, key)
    except BaseException:
        service.vault.destroy(key_id, file_id)
        raise
    with service.db.read() as session:
        now = clock(session)
    return Shard(
        id=ids.new(),
        created_at=now,
        tenant_id=tenant_id,
        dataset_id=dataset_id,
        feature_map_id=feature_map_id,
        first=first,
        rows=last - first + 1,
        clipped=clipped,
        file_id=file_id,
        key_id=key_id,
    )
