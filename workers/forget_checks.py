"""What is measured of a replacement: its metrics, and what it says of rows that went and of rows that stay.

Evaluation rows are read once for all versions: at most 10,000, of at most a dozen shards of a dataset, always
the same ones. So the cost does not grow with what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select

from app.methods import networks
from app.methods.base import Snapshot
from app.methods.parts.features import embed
from app.methods.parts.scoring import Scorer, scorer_of
from app.service import Service
from app.services.datasets import shards
from app.services.datasets.shards import EVAL, Block
from app.tables import Dataset, Shard
from workers import forget_rows
from workers.forget_plan import Plan, Task
from workers.forget_rows import Forgotten
from workers.measure import Examiner, Measured
from workers.plan import Use
from workers.rows import MadeFeatures

MOST_ROWS = 10_000
MOST_SHARDS = 12  # of one dataset
NO_OTHERS = "not measured: no other rows in the opened shards"
FEWEST = 25  # rows of which a mean is stated; of fewer it tells about each


def decade(bound: float) -> float:
    """The power of ten that a bound (at least 0) does not exceed. All digits of one would tell the rows that
    it is made of, and a certificate keeps what it says when these are forgotten in their turn."""
    return float(f"1e{math.ceil(math.log10(bound))}") if bound > 0 else 0.0


@dataclass
class Panel:
    """The evaluation rows of a job's versions."""

    service: Service
    plan: Plan
    tell: Callable[[], None]
    _share: float | None = None  # of the rows of every dataset
    _blocks: dict[tuple[object, ...], list[Block]] = field(default_factory=dict)

    def measure(
        self,
        after: Snapshot,
        task: Task,
        known_before: frozenset[str],
        earlier: Sequence[Mapping[str, float | None]],
        features: MadeFeatures | None,
    ) -> Measured:
        """The metrics of a version on the rows that it may be measured with."""
        examiner = Examiner(
            after, task.evaluate, regression=self.plan.regression, earlier=earlier, ready=True
        )
        for use in task.evaluate:
            for block in self._rows(after, task.old.feature_map_id, use, features):
                self.tell()
                examiner.see(use.dataset_id, block)
        return examiner.result(known_before)

    def _rows(
        self, after: Snapshot, feature_map_id: UUID, use: Use, features: MadeFeatures | None
    ) -> list[Block]:
        """The rows that the head reads, kept for heads that read the same."""
        assert after.head is not None
        key = (feature_map_id, features is not None, after.head.expanded, use)
        if key not in self._blocks:
            made = None if features is None else features[use.dataset_id]
            blocks = _sample(self.service, feature_map_id, use, made, self._share_of_rows())
            scorer = scorer_of(after)
            self._blocks[key] = [replace(block, x=scorer.rows(block.x)) for block in blocks]
        return self._blocks[key]

    def _share_of_rows(self) -> float:
        if self._share is None:
            uses = {(use.dataset_id, use.every_split) for task in self.plan.tasks for use in task.evaluate}
            with self.service.db.read() as session:
                total = sum(_size(session.get_one(Dataset, id), every) for id, every in uses)
            self._share = min(1.0, MOST_ROWS / max(1, total))
        return self._share


def on_rows(
    service: Service, plan: Plan, task: Task, after: Snapshot, features: MadeFeatures | None
) -> dict[str, Any]:
    """What the replacement says of the forgotten rows, and of rows of the same shards that it still uses."""
    stored = plan.forgotten[task.old.feature_map_id]
    if features is not None:
        stored = _anew(service, plan, task, after)
    gone = forget_rows.picked(stored.blocks, task.learned)
    out = {use.dataset_id: use.without for use in task.everything}
    others = [
        block.pick(~np.isin(block.positions, np.fromiter(out[id], np.int64, len(out[id]))))
        for id, blocks in stored.beside.items()
        if id in task.learned and id in out
        for block in blocks
    ]
    scorer = scorer_of(after)
    beside = _said(scorer, after, others, plan)
    if not beside["rows"]:
        beside["reason"] = NO_OTHERS
    return {"forgotten": _said(scorer, after, gone, plan), "others": beside}


def _anew(service: Service, plan: Plan, task: Task, after: Snapshot) -> Forgotten:
    """The rows through the version's own network: nothing of those that go is stored on its new map."""
    as_sent = forget_rows.read(service, None, task.learned, plan.entries.all_rows)
    network = networks.load(after.network, after.input, after.weights)

    def through(blocks: Mapping[UUID, tuple[Block, ...]]) -> dict[UUID, tuple[Block, ...]]:
        return {
            id: tuple(replace(b, x=next(embed(network, [b.x], after.grid))) for b in some if len(b))
            for id, some in blocks.items()
        }

    return Forgotten(through(as_sent.blocks), through(as_sent.beside))


def _said(scorer: Scorer, after: Snapshot, blocks: Sequence[Block], plan: Plan) -> dict[str, Any]:
    """How many rows, and the share predicted right, or of a regression the mean absolute error."""
    right: list[Any] = [np.empty(0)]
    for block in blocks:
        chosen = block.pick(block.says(targets=plan.regression))
        if not len(chosen):
            continue
        scores = scorer(chosen.x)
        if plan.regression:
            assert chosen.targets is not None
            right.append(np.abs(scores[:, 0] - chosen.targets))
        else:
            labels = shards.label_index(chosen.names, after.classes)[chosen.labels]
            right.append((scores.argmax(axis=1) == labels).astype(np.float64))
    return _stated(np.concatenate(right), "mean_absolute_error" if plan.regression else "accuracy")


def _stated(values: Any, name: str) -> dict[str, Any]:
    """The mean as it may be kept for good: not where one row would tell in it."""
    if len(values) < FEWEST:
        why = {"reason": "too few rows to state it"} if len(values) else {}
        return {"rows": len(values), name: None, **why}
    if name == "accuracy":
        return {"rows": len(values), name: share(int(values.sum()), len(values))}
    return {"rows": len(values), name: float(f"{values.mean():.1g}")}


def share(right: int, rows: int) -> float:
    """The fraction of at least `FEWEST` rows, in so few digits that all of them read as all but one do, and
    none as one: otherwise it would say of each row which it was."""
    return round(right / rows, 2 if rows > 200 else 1)


def _sample(
    service: Service, feature_map_id: UUID, use: Use, made: Sequence[Shard] | None, share: float
) -> list[Block]:
    """Rows that an evaluation may use, evenly spread over evenly spread shards."""
    with service.db.read() as session:
        firsts = session.scalars(
            select(Shard.first)
            .where(Shard.dataset_id == use.dataset_id, Shard.feature_map_id.is_(None))
            .order_by(Shard.first)
        ).all()
        if not _size(session.get_one(Dataset, use.dataset_id), use.every_split):
            return []
    if not firsts:
        return []
    index = np.unique(np.linspace(0, len(firsts) - 1, MOST_SHARDS).astype(np.int64))
    found = _read(service, feature_map_id, use, made, [firsts[i] for i in index], share)
    return found or _read(service, feature_map_id, use, made, firsts, share)


def _read(
    service: Service,
    feature_map_id: UUID,
    use: Use,
    made: Sequence[Shard] | None,
    firsts: Sequence[int],
    share: float,
) -> list[Block]:
    split = None if use.every_split else EVAL
    blocks = shards.read(
        service,
        use.dataset_id,
        feature_map_id,
        split=split,
        leave_out=sorted(use.without),
        near=firsts,
        made=made,
    )
    return [block.pick(_evenly(len(block), share)) for block in blocks]


def _evenly(rows: int, share: float) -> Any:
    """(rows,) whether each is taken, so that `share` of them are."""
    steps = np.floor(np.arange(rows + 1) * share)
    return np.diff(steps) > 0 if share < 1 else np.ones(rows, np.bool_)


def _size(dataset: Dataset, every_split: bool) -> int:
    return dataset.train_rows + dataset.eval_rows if every_split else dataset.eval_rows
