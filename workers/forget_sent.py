"""Rows that were sent again to be forgotten, in the place of stored ones.

A row counts only where its keyed fingerprint stands in the index of a deleted dataset, at a position that the
request erases: then it is subtracted as a stored row is, and gives the same bytes. Features of rows that go
through a network may differ in their last bits between machines and batch sizes; so they are made in several
ways, and the fingerprint says which was stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select

from app.errors import Purged
from app.methods import networks
from app.methods.base import Task as Purpose
from app.methods.base import Unfit
from app.methods.networks.identity import Identity
from app.methods.parts.features import BATCH, embed
from app.service import Service
from app.services.callers.access import tenant_key
from app.services.datasets import row_index, shards
from app.services.datasets.row_index import Index
from app.services.datasets.shards import TRAIN, Block
from app.services.models import snapshots
from app.services.models.classes import byte_order
from app.tables import Dataset, ForgetRequest, Model, Version
from workers.forget_entries import Entries, Gone, united
from workers.forget_rows import Forgotten


@dataclass(frozen=True)
class Row:
    """One row that was sent again, on a grid."""

    number: int  # which of its dataset
    x: NDArray[np.int16]
    label: str | None
    target: float | None


@dataclass
class Offer:
    """The rows that were sent again for a request: how many, and which a feature map knows."""

    dataset_id: UUID
    erases: Gone
    count: int = 0
    known: set[int] | None = None  # numbers of rows; None before a map was looked at

    @property
    def unmatched(self) -> int:
        return self.count - len(self.known or ())


def offers(service: Service, entries: Entries) -> dict[UUID, Offer]:
    """What was sent again for the requests of a job, by request."""
    with service.db.read() as session:
        query = (
            select(ForgetRequest.id, Dataset.id, Dataset.train_rows + Dataset.eval_rows)
            .join(Dataset, Dataset.id == ForgetRequest.rows_id)
            .where(
                ForgetRequest.id.in_(set(entries.request_of.values())),
                Dataset.for_forget,
                Dataset.deleted_at.is_(None),
            )
        )
        found = session.execute(query).all()
    return {
        id: Offer(
            dataset_id,
            united(rows for at, rows in entries.rows.items() if entries.request_of[at] == id),
            count,
        )
        for id, dataset_id, count in found
    }


def complete(
    service: Service,
    model: Model,
    version: Version,
    stored: Forgotten,
    offered: Mapping[UUID, Offer],
) -> Forgotten:
    """The rows of a version's map with those that were sent again in the place of those that are nowhere."""
    if not stored.nowhere:
        return stored
    map_id, regression = version.feature_map_id, model.task == Purpose.REGRESSION
    indexes = {id: found for id in stored.nowhere if (found := row_index.read(service, id, map_id))}
    silent = {
        id: positions & indexes[id].silent(regression=regression)
        for id, positions in stored.nowhere.items()
        if id in indexes
    }
    nowhere = {id: positions - silent.get(id, frozenset()) for id, positions in stored.nowhere.items()}
    key = tenant_key(service, model.tenant_id)
    blocks, sent = dict(stored.blocks), []
    for offer in offered.values():
        rows = _rows(service, model, version, key, offer.dataset_id)
        known = _known(stored, key, map_id, offer.erases)
        for id, index in indexes.items():
            mine = stored.nowhere[id] & offer.erases.get(id, frozenset())
            told = index.of(mine)
            known |= set(told.values())
            wanted = {at: rows[value] for at, value in told.items() if at in nowhere[id] and value in rows}
            if wanted:
                blocks[id] = (*blocks.get(id, ()), _block(wanted, offer.dataset_id))
                sent.append({id: frozenset(wanted)})
                nowhere[id] -= wanted.keys()
        offer.known = (offer.known or set()) | {rows[value].number for value in known & rows.keys()}
    return replace(
        stored,
        blocks=blocks,
        nowhere={id: positions for id, positions in nowhere.items() if positions},
        silent=silent,
        sent=united(sent),
        labels={id: _labels(index, stored.nowhere[id]) for id, index in indexes.items()},
    )


def _labels(index: Index, positions: frozenset[int]) -> dict[str, frozenset[int]]:
    return {name: mine for name in index.names if (mine := positions & index.labelled(name))}


def _known(stored: Forgotten, key: bytes, map_id: UUID, erases: Gone) -> set[bytes]:
    """The fingerprints of rows that the request erases and that are stored still."""
    found: set[bytes] = set()
    for id, blocks in stored.blocks.items():
        positions = sorted(erases.get(id, ()))
        for block in blocks:
            found |= set(row_index.of_block(key, map_id, block.pick(np.isin(block.positions, positions))))
    return found


def _rows(service: Service, model: Model, version: Version, key: bytes, dataset_id: UUID) -> dict[bytes, Row]:
    """Rows that were sent again, by what they are known by on this map. None where they have another form."""
    with service.db.read() as session:
        dataset = session.get_one(Dataset, dataset_id)
    found: dict[bytes, Row] = {}
    if dataset.shape != list(model.input["shape"]):
        return found
    snapshot = snapshots.load(service, version.id).snapshot
    network = networks.load(snapshot.network, snapshot.input, snapshot.weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as it was when they were stored
    number = 0
    try:
        for block in shards.read(service, dataset_id):
            for batch in _batches(block.x, isinstance(network, Identity)):
                parts = list(embed(network, batch, snapshot.grid, device))
                on_grid = replace(block, x=np.concatenate(parts)[: len(block)])
                for i, value in enumerate(row_index.of_block(key, version.feature_map_id, on_grid)):
                    found.setdefault(value, _row(on_grid, i, number + i))
            number += len(block)
    except (Purged, Unfit):
        return {}
    return found


def _row(block: Block, i: int, number: int) -> Row:
    label = block.names[block.labels[i]] if block.labels[i] >= 0 else None
    return Row(number, block.x[i], label, None if block.targets is None else float(block.targets[i]))


def _batches(x: NDArray[Any], exact: bool) -> Iterator[Sequence[NDArray[Any]]]:
    """The rows as they came; and, for a network whose last bits depend on how many go at once, each batch
    filled up to its full size, and one by one."""
    yield [x]
    if not exact:
        yield [np.resize(x, (-(-len(x) // BATCH) * BATCH, *x.shape[1:]))]
        yield [x[i : i + 1] for i in range(len(x))]


def _block(rows: Mapping[int, Row], shard_id: UUID) -> Block:
    """Rows at the positions that they had."""
    positions = sorted(rows)
    chosen = [rows[at] for at in positions]
    names = byte_order({row.label for row in chosen if row.label is not None})
    targets = [row.target for row in chosen]
    return Block(
        positions=np.array(positions, np.int64),
        x=np.stack([row.x for row in chosen]),
        labels=np.array([-1 if row.label is None else names.index(row.label) for row in chosen], np.int32),
        names=names,
        split=np.full(len(chosen), TRAIN, np.uint8),
        targets=None if None in targets else np.array(targets, np.float64),
        shard_id=shard_id,
    )
