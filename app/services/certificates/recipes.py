"""How a version came to be: the settings, and the steps with the rows that each of them learned.

The steps are the versions of its ancestry, oldest first. A row belongs to the first step that learned it;
step 0 is what an ancestor learned that is no longer known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.methods.base import Task
from app.services.datasets.shards import TRAIN, Block
from app.tables import Model, Version, VersionDataset

UNUSED = -1  # the step of a row that was not learned


@dataclass(frozen=True)
class Use:
    """Which rows of one dataset a version was made from, and by which step."""

    dataset_id: UUID
    learned: frozenset[int] | None  # positions left out of what was learned; None: it learned none of it
    selected: frozenset[int] | None  # the same of what parameters were chosen on
    steps: tuple[tuple[int, frozenset[int]], ...]  # step and the positions that it left out, oldest first

    def step_of(self, block: Block, *, regression: bool) -> NDArray[np.int32]:
        """(rows,) the step that learned each row of a block, `UNUSED` where none did."""
        found = np.full(len(block), UNUSED, np.int32)
        if self.learned is None:
            return found
        kept = block.says(targets=regression) & (block.split == TRAIN) & ~_among(block, self.learned)
        found[kept] = 0
        for step, left_out in reversed(self.steps):
            found[kept & ~_among(block, left_out)] = step
        return found

    def selects(self, block: Block, *, regression: bool) -> NDArray[np.bool_]:
        """(rows,) whether parameters were chosen on each row."""
        if self.selected is None:
            return np.zeros(len(block), np.bool_)
        return block.says(targets=regression) & ~_among(block, self.selected)


@dataclass(frozen=True)
class Recipe:
    """A version's making, as its rows say; belongs to no session."""

    model: Model
    version: Version
    steps: tuple[Version, ...]  # its ancestry, itself last
    edges: tuple[tuple[VersionDataset, ...], ...]  # of each step
    uses: tuple[Use, ...]  # by id of the dataset

    @property
    def regression(self) -> bool:
        return self.model.task == Task.REGRESSION

    def describe(self) -> dict[str, Any]:
        """As a certificate carries it: ids, settings and counts."""
        model, version = self.model, self.version
        return {
            "task": model.task,
            "input": model.input,
            "grid": model.grid,
            "network": model.network,
            "expansion": model.expansion and {**model.expansion, "seed": str(model.expansion["seed"])},
            "ridge": model.ridge,
            "target": model.target,
            "method": {"name": version.method, "params": version.params},
            "seed": str(version.seed),
            "datasets": [_edge(edge) for edge in self.edges[-1]],
            "steps": [
                _step(number, row, edges)
                for number, (row, edges) in enumerate(zip(self.steps, self.edges, strict=True), 1)
            ],
        }


def of(session: Session, version: Version) -> Recipe:
    """How a version came to be."""
    steps = _ancestry(session, version)
    edges = tuple(_edges(session, row.id) for row in steps)
    own = {(edge.dataset_id, edge.role): edge for edge in edges[-1]}
    uses = [_use(id, own, edges) for id in sorted({id for id, role in own if role in ("train", "select")})]
    return Recipe(session.get_one(Model, version.model_id), version, steps, edges, tuple(uses))


def _ancestry(session: Session, version: Version) -> tuple[Version, ...]:
    found = [version]
    while found[-1].parent_id is not None:
        found.append(session.get_one(Version, found[-1].parent_id))
    return tuple(reversed(found))


def _edges(session: Session, version_id: UUID) -> tuple[VersionDataset, ...]:
    query = select(VersionDataset).filter_by(version_id=version_id)
    return tuple(session.scalars(query.order_by(VersionDataset.dataset_id, VersionDataset.role)))


def _use(
    dataset_id: UUID,
    own: dict[tuple[UUID, str], VersionDataset],
    edges: Sequence[Iterable[VersionDataset]],
) -> Use:
    learned, selected = own.get((dataset_id, "train")), own.get((dataset_id, "select"))
    steps = [
        (step, frozenset(edge.left_out))
        for step, found in enumerate(edges, 1)
        for edge in found
        if (edge.dataset_id, edge.role) == (dataset_id, "train") and not edge.inherited
    ]
    return Use(
        dataset_id,
        None if learned is None else frozenset(learned.left_out),
        None if selected is None else frozenset(selected.left_out),
        tuple(steps),
    )


def _among(block: Block, positions: frozenset[int]) -> NDArray[np.bool_]:
    return np.isin(block.positions, np.fromiter(positions, np.int64, len(positions)))


def _step(number: int, version: Version, edges: Iterable[VersionDataset]) -> dict[str, Any]:
    return {
        "step": number,
        "version": ids.encode("ver", version.id),
        "method": {"name": version.method, "params": version.params},
        "seed": str(version.seed),
        "datasets": [_edge(edge) for edge in edges if not edge.inherited],
    }


def _edge(edge: VersionDataset) -> dict[str, Any]:
    return {"dataset": ids.encode("dst", edge.dataset_id), "role": edge.role, "rows": edge.rows}
