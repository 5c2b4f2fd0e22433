"""Rows of a plan, as a method reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from app import ids
from app.errors import AlreadyUsed, TooFewSamples, ValidationFailed
from app.methods.base import Reads, Rows
from app.methods.parts.targets import LIMIT, OffGrid, on_grid
from app.service import Service
from app.services.datasets import shards
from app.services.datasets.shards import TRAIN, Block
from app.services.models import heads
from app.services.models.classes import byte_order
from app.tables import Shard
from workers.plan import Plan, Use

MadeFeatures = Mapping[UUID, Sequence[Shard]]
KEPT_BYTES = 512 << 20  # rows up to this size are opened once and kept while the method runs


@dataclass(frozen=True)
class Gathered:
    """Rows, and how many each dataset gave."""

    rows: Rows
    counts: Mapping[UUID, int]


def gather(service: Service, plan: Plan) -> Gathered:
    """The train rows of the plan, without those left out; none where another head is made of known rows."""
    found = collect(service, plan, plan.train)
    _check(plan, found.counts)
    return found


def collect(service: Service, plan: Plan, uses: Sequence[Use], made: MadeFeatures | None = None) -> Gathered:
    """Find the rows that have a label, or for a regression a target; their blocks are read when asked.

    `made`: features that no row names yet, by dataset, in place of those of the plan's map.
    """
    counts: dict[UUID, int] = {}
    parts: list[tuple[tuple[str, ...], NDArray[np.int32]]] = []
    targets: list[NDArray[np.float64]] = []
    kept: list[NDArray[Any]] | None = []
    size = 0
    for dataset_id, block in _blocks(service, plan, uses, made):
        counts[dataset_id] = counts.get(dataset_id, 0) + len(block)
        parts.append((block.names, block.labels))
        if block.targets is not None:
            _check_targets(plan, dataset_id, block.positions, block.targets)
            targets.append(block.targets)
        size += block.x.nbytes
        kept = [*kept, block.x] if kept is not None and size <= KEPT_BYTES else None

    def again() -> Iterator[NDArray[Any]]:
        for _, block in _blocks(service, plan, uses, made):
            yield block.x

    known = kept
    blocks = again if known is None else lambda: iter(known)
    if plan.regression:
        values = np.concatenate([*targets, np.empty(0)])
        return Gathered(Rows(("",), np.zeros(len(values), np.int64), blocks, values), counts)
    classes = byte_order(names[i] for names, labels in parts for i in np.unique(labels))
    indices = [shards.label_index(names, classes)[index] for names, index in parts]
    return Gathered(Rows(classes, np.concatenate([*indices, np.empty(0, np.int64)]), blocks), counts)


def _check_targets(
    plan: Plan, dataset_id: UUID, positions: NDArray[np.int64], targets: NDArray[np.float64]
) -> None:
    """Name the dataset and the position of a target that the model's grid cannot hold, never its value."""
    target = heads.of_model(plan.model)["target"]
    if target is None:
        return
    try:
        on_grid(targets, target)
    except OffGrid as error:
        pointer = "/datasets"
        if dataset_id.hex in plan.request["datasets"]:
            pointer = f"/datasets/{plan.request['datasets'].index(dataset_id.hex)}"
        limit = f"+-{LIMIT} * 2**{target.exponent}"
        where = f"the target at position {positions[error.row]} of dataset {ids.encode('dst', dataset_id)}"
        raise ValidationFailed(
            f"{where} is outside the grid, which ends at {limit}", pointer=pointer
        ) from None


def _blocks(
    service: Service, plan: Plan, uses: Sequence[Use], made: MadeFeatures | None
) -> Iterator[tuple[UUID, Block]]:
    """Every row that the uses keep, dataset by dataset, in the order of positions."""
    feature_map = plan.feature_map_id if plan.method.reads is Reads.FEATURES else None
    for use in uses:
        split = None if use.every_split else TRAIN
        for block in shards.read(
            service,
            use.dataset_id,
            feature_map,
            split=split,
            leave_out=sorted(use.without),
            near=use.only,
            made=None if made is None else made[use.dataset_id],
        ):
            chosen = block.pick(use.keeps(block.positions) & block.says(targets=plan.regression))
            if len(chosen):
                yield use.dataset_id, chosen


def _check(plan: Plan, counts: Mapping[UUID, int]) -> None:
    for i, use in enumerate(plan.train):
        if counts.get(use.dataset_id):
            continue
        if use.only is not None:
            raise AlreadyUsed("the base has learned these rows already", pointer=f"/datasets/{i}")
        raise TooFewSamples("no train row of this dataset is left to learn from", pointer=f"/datasets/{i}")
