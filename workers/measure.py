"""What a new version gets right, on rows that it never learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Snapshot
from app.methods.parts import metrics
from app.methods.parts.scoring import scorer_of, top_k
from app.service import Service
from app.services.datasets import shards
from app.services.datasets.shards import EVAL, Block
from workers.plan import Plan, Use

CHUNK = 4_096  # rows that are scored at once


@dataclass(frozen=True)
class Measured:
    """The metrics of a version, and how many rows of each dataset they stand on."""

    metrics: dict[str, Any]
    rows: Mapping[UUID, int]


class Examiner:
    """Predicts blocks of features and keeps truth beside prediction."""

    def __init__(
        self,
        after: Snapshot,
        evaluate: Iterable[Use],
        *,
        regression: bool,
        earlier: Sequence[Mapping[str, float | None]] = (),
        ready: bool = False,
    ) -> None:
        """`earlier`: the accuracy per class of every ancestor, youngest first. `ready`: blocks hold the rows
        that the head reads, expanded where it is."""
        self._after = after
        self._regression = regression
        self._earlier = earlier
        scorer = scorer_of(after)
        self._scores = scorer.of_rows if ready else scorer
        self._uses: Mapping[UUID, Use] = {use.dataset_id: use for use in evaluate}
        self._truth: list[NDArray[Any]] = []  # indices of classes, or targets
        self._guess: list[NDArray[Any]] = []
        self._rows: dict[UUID, int] = {}

    def see(self, dataset_id: UUID, block: Block) -> None:
        """Take the rows of a block of features that count for the evaluation."""
        use = self._uses.get(dataset_id)
        if use is None:
            return
        wanted = use.keeps(block.positions) & block.says(targets=self._regression)
        if not use.every_split:
            wanted &= block.split == EVAL
        chosen = block.pick(wanted)
        if not len(chosen):
            return
        self._rows[dataset_id] = self._rows.get(dataset_id, 0) + len(chosen)
        self._truth.append(self._true(chosen))
        for at in range(0, len(chosen), CHUNK):
            scores = self._scores(chosen.x[at : at + CHUNK])
            self._guess.append(scores[:, 0] if self._regression else top_k(scores, 1)[0][:, 0])

    def _true(self, chosen: Block) -> NDArray[Any]:
        if self._regression:
            assert chosen.targets is not None
            return chosen.targets
        labels: NDArray[np.int64] = shards.label_index(chosen.names, self._after.classes)[chosen.labels]
        return labels

    def result(self, known_before: frozenset[str]) -> Measured:
        """All metrics; null where no row says anything."""
        if self._regression:
            values = [np.concatenate([*part, np.empty(0)]) for part in (self._truth, self._guess)]
            return Measured(metrics.measure_values(*values), self._rows)
        none = [np.empty(0, np.int64)]
        found = metrics.measure(
            np.concatenate(self._truth or none),
            np.concatenate(self._guess or none),
            self._after.classes,
            old=known_before,
            earlier=self._earlier,
        )
        return Measured(found, self._rows)


def examine(service: Service, plan: Plan, examiner: Examiner, tell: Callable[[int], None]) -> None:
    """Show the examiner every stored feature of the plan's evaluation."""
    for use in plan.evaluate:
        split = None if use.every_split else EVAL
        blocks = shards.read(
            service, use.dataset_id, plan.feature_map_id, split=split, leave_out=sorted(use.without)
        )
        for block in blocks:
            examiner.see(use.dataset_id, block)
            tell(len(block))
