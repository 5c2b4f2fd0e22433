"""Row indexes: keyed fingerprints of the rows of a deleted dataset, so that rows sent again can be told.

One encrypted file for each dataset and feature map, under a key of its own, written when the rows are
destroyed and a version that used them stays. It is not kept in each version's file: every version that
builds on another would have to carry the fingerprints of all that its ancestry learned, so that publishing
would cost the whole past, and forgetting one row would write every version's file anew.

The file holds `positions` int64, `label` int32 (an index into the metadata `classes`, -1 for none), `split`
uint8 (0 train, 1 eval) and `fingerprint` uint8 (rows, 16). A forgotten row is taken out by its purge.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, Purged
from app.service import Service
from app.services.callers.access import tenant_key
from app.services.datasets import shards
from app.services.datasets.shard_files import dump, parse
from app.services.datasets.shards import TRAIN, Block
from app.tables import Dataset, RowIndex, Shard, Version, VersionDataset
from app.vault import new_key

log = logging.getLogger(__name__)

SIZE = 16  # bytes of a fingerprint

Tell = Callable[[float], None]


@dataclass(frozen=True)
class Index:
    """What is known of the rows of a deleted dataset on a feature map."""

    positions: NDArray[np.int64]  # (n,), rising
    labels: NDArray[np.int32]  # (n,), indices into `names`, -1 for none
    names: tuple[str, ...]
    split: NDArray[np.uint8]  # (n,)
    fingerprints: NDArray[np.uint8]  # (n, 16)
    has_targets: bool

    def silent(self, *, regression: bool) -> frozenset[int]:
        """Positions that no version learned from: of split eval, or without a label or target."""
        says = np.full(len(self.positions), self.has_targets) if regression else self.labels >= 0
        return frozenset(self.positions[(self.split != TRAIN) | ~says].tolist())

    def of(self, positions: Collection[int]) -> dict[int, bytes]:
        """The fingerprints at these positions; of those that are there."""
        mine = np.isin(self.positions, np.fromiter(positions, np.int64, len(positions)))
        pairs = zip(self.positions[mine].tolist(), self.fingerprints[mine], strict=True)
        return {position: value.tobytes() for position, value in pairs}

    def labelled(self, name: str) -> set[int]:
        """Positions of the rows with this label, of either split."""
        if name not in self.names:
            return set()
        return set(self.positions[self.labels == self.names.index(name)].tolist())


def fingerprints(
    key: bytes,
    feature_map_id: UUID,
    x: NDArray[np.int16],
    labels: Sequence[str | None],
    targets: NDArray[np.float64] | None,
) -> Iterator[bytes]:
    """What each row (n, width) is known by: HMAC-SHA256 under the tenant's key, cut to 16 bytes, over feature
    map, grid features, label and target, each of a length that is fixed or told."""
    start = b"palimpsest row" + feature_map_id.bytes
    for i, label in enumerate(labels):
        text = b"-" if label is None else f"{len(label.encode())}:{label}".encode()
        target = b"" if targets is None else np.float64(targets[i]).tobytes()
        line = b"".join((start, x.shape[1].to_bytes(8, "little"), x[i].tobytes(), text, target))
        yield hmac.digest(key, line, "sha256")[:SIZE]


def of_block(key: bytes, feature_map_id: UUID, block: Block) -> Iterator[bytes]:
    """The fingerprints of rows on the grid of a feature map."""
    labels = [block.names[i] if i >= 0 else None for i in block.labels]
    return fingerprints(key, feature_map_id, block.x, labels, block.targets)


def write(service: Service, dataset_id: UUID, tell: Tell) -> int:
    """Write the index of a deleted dataset for each map on which a version that is there used it; returns how
    many there are then. Before its keys are destroyed; safe to repeat."""
    with service.db.read() as session:
        maps = _maps(session, dataset_id)
    return sum(_write(service, dataset_id, map_id, tell) for map_id in maps)


def read(service: Service, dataset_id: UUID, feature_map_id: UUID) -> Index | None:
    """The index of a dataset on a map, if there is one. One that was written anew meanwhile is read again."""
    seen: UUID | None = None
    while True:
        with service.db.read() as session:
            row = session.scalar(
                select(RowIndex).filter_by(dataset_id=dataset_id, feature_map_id=feature_map_id)
            )
        if row is None:
            return None
        try:
            arrays, metadata = parse(service.vault.open(row.file_id, service.vault.key(row.key_id)))
        except ArtifactCorrupt:
            if row.file_id == seen:
                raise
            seen = row.file_id
            continue
        return Index(
            positions=arrays["positions"],
            labels=arrays["label"],
            names=tuple(json.loads(metadata["classes"])),
            split=arrays["split"],
            fingerprints=arrays["fingerprint"],
            has_targets=metadata["targets"] == "1",
        )


def there(session: Session, dataset_ids: Collection[UUID], feature_map_id: UUID) -> set[UUID]:
    """Those of the datasets that have an index on the map."""
    query = select(RowIndex.dataset_id).where(
        RowIndex.dataset_id.in_(list(dataset_ids)), RowIndex.feature_map_id == feature_map_id
    )
    return set(session.scalars(query))


def comes(session: Session, dataset_ids: Collection[UUID], feature_map_id: UUID) -> set[UUID]:
    """Those of the datasets that have an index on the map, or get one: rows of theirs on it still wait for
    the purge that writes it."""
    waiting = select(Shard.dataset_id).where(
        Shard.dataset_id.in_(list(dataset_ids)), Shard.feature_map_id == feature_map_id
    )
    return there(session, dataset_ids, feature_map_id) | set(session.scalars(waiting.distinct()))


def any_of(service: Service, dataset_id: UUID) -> Index | None:
    """An index of the dataset, whatever the map: positions, labels and splits are the same in each."""
    with service.db.read() as session:
        map_id = session.scalar(select(RowIndex.feature_map_id).filter_by(dataset_id=dataset_id).limit(1))
    return None if map_id is None else read(service, dataset_id, map_id)


def destroy(service: Service, dataset_id: UUID) -> None:
    """Destroy what is known of the rows of a dataset that no version uses any more."""
    with service.db.read() as session:
        found = session.scalars(select(RowIndex).filter_by(dataset_id=dataset_id)).all()
    for row in found:
        service.vault.destroy(row.key_id, row.file_id)
    if found:
        with service.db.begin() as session:
            session.execute(delete(RowIndex).where(RowIndex.id.in_([row.id for row in found])))


def _maps(session: Session, dataset_id: UUID) -> list[UUID]:
    """Maps that the dataset was put through and on which a version that is there used it."""
    return list(
        session.scalars(
            select(Version.feature_map_id)
            .join(VersionDataset, VersionDataset.version_id == Version.id)
            .join(
                Shard,
                (Shard.dataset_id == VersionDataset.dataset_id)
                & (Shard.feature_map_id == Version.feature_map_id),
            )
            .where(VersionDataset.dataset_id == dataset_id, Version.state != "purged")
            .distinct()
            .order_by(Version.feature_map_id)
        )
    )


def _write(service: Service, dataset_id: UUID, map_id: UUID, tell: Tell) -> bool:
    """Whether the index is there then. An erasure in the dataset meanwhile starts the work again."""
    while True:
        with service.db.read() as session:
            if there(session, [dataset_id], map_id):
                return True
            seen = _keys(session, dataset_id, map_id)
        try:
            arrays, metadata = _gathered(service, dataset_id, map_id, tell)
        except (ArtifactCorrupt, Purged):
            with service.db.read() as session:
                if _keys(session, dataset_id, map_id) != seen:
                    continue
            log.warning("rows could not be read for their index", extra={"dataset": dataset_id.hex})
            return False
        if not len(arrays["positions"]):
            return False
        if _commit(service, dataset_id, map_id, arrays, metadata, seen):
            return True


def _gathered(
    service: Service, dataset_id: UUID, map_id: UUID, tell: Tell
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays of the index, from one shard after the other."""
    with service.db.read() as session:
        dataset = session.get_one(Dataset, dataset_id)
    key = tenant_key(service, dataset.tenant_id)
    names: tuple[str, ...] = ()
    parts: dict[str, list[NDArray[Any]]] = {
        "positions": [np.zeros(0, np.int64)],
        "label": [np.zeros(0, np.int32)],
        "split": [np.zeros(0, np.uint8)],
        "fingerprint": [np.zeros((0, SIZE), np.uint8)],
    }
    for block in shards.read(service, dataset_id, map_id, though_deleted=True):
        tell(0.0)
        names = block.names
        found = np.frombuffer(b"".join(of_block(key, map_id, block)), np.uint8).reshape(-1, SIZE)
        parts["positions"].append(block.positions)
        parts["label"].append(block.labels)
        parts["split"].append(block.split)
        parts["fingerprint"].append(found)
    metadata = {
        "classes": json.dumps(list(names), ensure_ascii=False),
        "targets": "1" if dataset.has_targets else "",
    }
    return {name: np.concatenate(found) for name, found in parts.items()}, metadata


def _commit(
    service: Service,
    dataset_id: UUID,
    map_id: UUID,
    arrays: dict[str, NDArray[Any]],
    metadata: dict[str, str],
    seen: frozenset[UUID],
) -> bool:
    """Seal and name the file, unless rows were erased meanwhile or another purge was first."""
    file_id, key_id = ids.new(), ids.new()
    service.vault.write_key(key_id, service.vault.seal(file_id, dump(arrays, metadata), new_key()))
    try:
        with service.db.begin() as session:
            dataset = session.scalars(select(Dataset).filter_by(id=dataset_id).with_for_update()).one()
            if named := _keys(session, dataset_id, map_id) == seen:
                session.add(
                    RowIndex(
                        id=ids.new(),
                        created_at=clock(session),
                        tenant_id=dataset.tenant_id,
                        dataset_id=dataset_id,
                        feature_map_id=map_id,
                        rows=len(arrays["positions"]),
                        file_id=file_id,
                        key_id=key_id,
                    )
                )
    except IntegrityError:
        named = False
    if not named:
        service.vault.destroy(key_id, file_id)
    return named


def _keys(session: Session, dataset_id: UUID, map_id: UUID) -> frozenset[UUID]:
    """The keys of the rows as sent and of their features: an erasure changes them."""
    mine = (Shard.feature_map_id == map_id) | Shard.feature_map_id.is_(None)
    return frozenset(session.scalars(select(Shard.key_id).where(Shard.dataset_id == dataset_id, mine)))
