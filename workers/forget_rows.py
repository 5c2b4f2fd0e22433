"""The rows that a forget job takes away, as they are stored; and of those that stay a few beside them, to be
predicted for comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from app.errors import Purged
from app.methods.base import Rows
from app.service import Service
from app.services.datasets import shards
from app.services.datasets.shards import EVAL, TRAIN, Block
from app.services.models.classes import byte_order
from app.tables import Shard

BESIDE = 200  # rows that stay, of one shard

Tell = Callable[[], None]


@dataclass(frozen=True)
class Forgotten:
    """Stored rows of one feature map, by dataset; `nowhere` are positions whose rows are not stored."""

    blocks: Mapping[UUID, tuple[Block, ...]]
    beside: Mapping[UUID, tuple[Block, ...]]
    nowhere: Mapping[UUID, frozenset[int]] = field(default_factory=dict)
    sent: Mapping[UUID, frozenset[int]] = field(default_factory=dict)  # rows in `blocks` that were sent again
    silent: Mapping[UUID, frozenset[int]] = field(default_factory=dict)  # not stored, nor ever learned
    labels: Mapping[UUID, Mapping[str, frozenset[int]]] = field(default_factory=dict)  # of what is not stored

    def measured(self) -> dict[UUID, frozenset[int]]:
        """Positions of split eval."""
        return self._where(lambda block: block.split == EVAL)

    def unlabelled(self, *, regression: bool) -> dict[UUID, frozenset[int]]:
        """Positions that say nothing a model could learn."""
        return self._where(lambda block: ~block.says(targets=regression))

    def _where(self, which: Callable[[Block], NDArray[np.bool_]]) -> dict[UUID, frozenset[int]]:
        return {
            id: frozenset(int(p) for block in blocks for p in block.positions[which(block)])
            for id, blocks in self.blocks.items()
        }

    def rows(self, wanted: Mapping[UUID, Collection[int]], *, regression: bool) -> Rows:
        """These positions as a method reads them; those that are stored."""
        return rows_of(picked(self.blocks, wanted), regression=regression)


def picked(blocks: Mapping[UUID, tuple[Block, ...]], wanted: Mapping[UUID, Collection[int]]) -> list[Block]:
    """The wanted positions of blocks, in their order."""
    found = []
    for id in sorted(wanted):
        positions = np.fromiter(wanted[id], np.int64, len(wanted[id]))
        for block in blocks.get(id, ()):
            chosen = block.pick(np.isin(block.positions, positions))
            if len(chosen):
                found.append(chosen)
    return found


def read(
    service: Service,
    feature_map_id: UUID | None,
    wanted: Mapping[UUID, Collection[int]],
    stays_out: Mapping[UUID, Collection[int]],
    tell: Tell = lambda: None,
    made: Mapping[UUID, Sequence[Shard]] | None = None,
) -> Forgotten:
    """Open the shards that hold the wanted rows. `stays_out` are rows that may not stand beside them; `made`
    features that no row names yet.

    Cost: that of those shards, whatever else is stored.
    """
    blocks: dict[UUID, tuple[Block, ...]] = {}
    beside: dict[UUID, tuple[Block, ...]] = {}
    nowhere: dict[UUID, frozenset[int]] = {}
    for id, positions in wanted.items():
        found: list[Block] = []
        others: list[Block] = []
        try:
            own = None if made is None else made[id]
            for block in shards.read(service, id, feature_map_id, near=positions, made=own):
                tell()
                found.append(block.pick(np.isin(block.positions, sorted(positions))))
                others.append(_some(block, {*positions, *stays_out.get(id, ())}, BESIDE))
        except Purged:
            found, others = [], []
        blocks[id], beside[id] = tuple(found), tuple(others)
        seen = {int(p) for block in found for p in block.positions}
        if missing := frozenset(positions) - seen:
            nowhere[id] = missing
    return Forgotten(blocks, beside, nowhere)


def rows_of(blocks: list[Block], *, regression: bool) -> Rows:
    """Blocks that each say what they are, as a method reads them."""
    if regression:
        targets = np.concatenate([*(b.targets for b in blocks if b.targets is not None), np.empty(0)])
        return Rows(("",), np.zeros(len(targets), np.int64), lambda: iter([b.x for b in blocks]), targets)
    classes = byte_order({b.names[i] for b in blocks for i in np.unique(b.labels)})
    labels = [shards.label_index(b.names, classes)[b.labels] for b in blocks]
    return Rows(
        classes, np.concatenate([*labels, np.empty(0, np.int64)]), lambda: iter([b.x for b in blocks])
    )


def _some(block: Block, out: Collection[int], most: int) -> Block:
    """Train rows of a block that stay, spread evenly over it."""
    stays = (block.split == TRAIN) & ~np.isin(block.positions, np.fromiter(out, np.int64, len(out)))
    index = np.flatnonzero(stays)
    return block.pick(index[:: max(1, -(-len(index) // most))])
