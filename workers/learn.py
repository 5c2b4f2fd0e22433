"""The computing part of an update: base, features, method, metrics. No transaction is open meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import torch
from safetensors.torch import load as parse

from app.methods import networks
from app.methods.base import Centroid, Context, Outcome, Progress, Snapshot, Split, Unfit
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.centroids import add_by_class
from app.methods.parts.features import BATCH
from app.methods.parts.learning import sums_of
from app.methods.parts.statistics import NotTogether, Statistics, TooLarge
from app.schemas.models import GRID
from app.service import Service
from app.services.datasets import features, shards
from app.services.datasets.shards import TRAIN, Block
from app.services.jobs import ClaimedJob
from app.services.models import heads, publish, snapshots
from app.services.models.publish import Shared
from app.tables import Model, Shard, Upload
from workers.checkpoints import JobCheckpoint
from workers.measure import Examiner, Measured, examine
from workers.plan import Plan
from workers.rows import Gathered, collect, gather

FEATURES_DONE, METHOD_DONE, MEASURED = 0.2, 0.9, 0.97  # shares of the whole job


@dataclass(frozen=True)
class Work:
    """What a job brings along to every step."""

    service: Service
    claimed: ClaimedJob
    plan: Plan
    report: Callable[[float, str, str], None]
    device: torch.device

    @property
    def batch(self) -> int:
        """Rows that go through a network at once."""
        return BATCH // 2 if self.claimed.halve_batch else BATCH


def load_base(work: Work) -> tuple[Snapshot, Mapping[str, Shared]]:
    """The base in memory and how its centroids are stored; without a base the model as it was created."""
    model, base, known = work.plan.model, work.plan.base, work.plan.known
    if base is None:
        return as_created(work.service, model), {}
    stored = known.stored if known else None
    own = stored is not None and stored.id == base.id
    before = snapshots.load(work.service, base.id, statistics=own).snapshot
    if stored is not None and not own:
        before = replace(before, statistics=snapshots.statistics_of(work.service, stored.id))
    with work.service.db.read() as session:
        return before, publish.shared(session, base.id, before.centroids)


def as_created(service: Service, model: Model) -> Snapshot:
    """The model before its first version."""
    return Snapshot(
        input=InputSpec.model_validate(model.input),
        grid=GRID.validate_python(model.grid),
        network=NetworkSpec.model_validate(model.network),
        weights=_uploaded(service, model.weights_id) if model.weights_id else {},
        **heads.of_model(model),
    )


def _uploaded(service: Service, weights_id: UUID) -> Mapping[str, torch.Tensor]:
    with service.db.read() as session:
        upload = session.get_one(Upload, weights_id)
    vault = service.vault
    return parse(vault.open(upload.file_id, vault.key(upload.key_id)))


@dataclass(frozen=True)
class Made:
    """What came of it; `shards` are sealed features of a new map, which no row names yet."""

    outcome: Outcome
    learned: Gathered
    selected: Mapping[UUID, int]  # rows that parameters were chosen on, by dataset
    measured: Measured
    shards: Sequence[Shard]


def learn(work: Work, before: Snapshot) -> Made:
    """Features, method, metrics. A method that trains the network also gives the features of its map."""
    plan = work.plan
    if plan.feature_map_id is not None:
        _ensure_features(work, before, plan.feature_map_id)
    learned = gather(work.service, plan)
    data = {Split.NEW: learned.rows}
    chosen = collect(work.service, plan, [plan.select]) if plan.select else None
    if chosen:
        data[Split.SELECT] = chosen.rows
    work.report(FEATURES_DONE, plan.method.name, "")
    outcome = plan.method.run(_with_lacking(work, before), data, plan.params, _context(work))
    examiner = Examiner(outcome.after, plan.evaluate, regression=plan.regression, earlier=plan.earlier)
    made: list[Shard] = []
    tell = _counter(work, _eval_rows(work), METHOD_DONE, MEASURED, "measuring")
    if plan.feature_map_id is not None:
        examine(work.service, plan, examiner, tell)
    else:
        outcome, made = new_features(work, outcome, examiner, plan.datasets)
    selected = chosen.counts if chosen else {}
    return Made(outcome, learned, selected, examiner.result(frozenset(before.classes)), made)


def _with_lacking(work: Work, before: Snapshot) -> Snapshot:
    """The base with statistics of all that it learned: rows that the stored ones lack are added to them."""
    if not work.plan.lacking:
        return before
    rows = collect(work.service, work.plan, work.plan.lacking).rows
    found = sums_of(before, rows, _context(work), 2 * len(rows.labels) + 1).statistics
    return replace(before, statistics=_together(before.statistics, found))


def _together(stored: Statistics | None, found: Statistics) -> Statistics:
    try:
        return found if stored is None else stored.merge(found)
    except (TooLarge, NotTogether) as error:
        raise Unfit(f"{error}", "/base") from None


def _ensure_features(work: Work, before: Snapshot, feature_map_id: UUID) -> None:
    network = networks.load(before.network, before.input, before.weights)
    tell = _counter(work, _all_rows(work), 0.0, FEATURES_DONE, "features")
    for dataset_id in work.plan.datasets:
        features.ensure(
            work.service, dataset_id, feature_map_id, network, before.grid, work.device, tell, work.batch
        )


def new_features(
    work: Work,
    outcome: Outcome,
    examiner: Examiner,
    datasets: Sequence[UUID],
    leave_out: Mapping[UUID, frozenset[int]] | None = None,
) -> tuple[Outcome, list[Shard]]:
    """Put these datasets through the trained network once, without the rows in `leave_out`: stored features,
    and centroids of the plan's train rows that are their sums.

    What later versions read is stored here and never computed again, so the centroids are taken from it.
    """
    after = outcome.after
    network = networks.load(after.network, after.input, after.weights)
    sums = np.zeros((len(after.classes), networks.width(after.network, after.input)), np.int64)
    counts = np.zeros(len(after.classes), np.int64)
    uses = {use.dataset_id: use for use in work.plan.train}
    tell = _counter(work, _all_rows(work), METHOD_DONE, MEASURED, "features")
    made: list[Shard] = []

    def see(dataset_id: UUID, block: Block) -> None:
        examiner.see(dataset_id, block)
        if (use := uses.get(dataset_id)) is None:
            return
        chosen = block.pick(use.keeps(block.positions) & (block.labels >= 0) & (block.split == TRAIN))
        labels = shards.label_index(chosen.names, after.classes)[chosen.labels]
        add_by_class(sums, chosen.x, labels)
        counts[:] += np.bincount(labels, minlength=len(counts))

    try:
        for dataset_id in datasets:
            made += features.make(
                work.service,
                dataset_id,
                None,
                network,
                after.grid,
                work.device,
                tell,
                work.batch,
                see=lambda block, id=dataset_id: see(id, block),  # type: ignore[misc]
                leave_out=(leave_out or {}).get(dataset_id, ()),
            )
    except BaseException:
        shards.discard(work.service, made)
        raise
    centroids = {name: Centroid(sums[i], int(counts[i])) for i, name in enumerate(after.classes)}
    return replace(outcome, after=replace(after, centroids=centroids)), made


def _context(work: Work) -> Context:
    plan = work.plan

    def tell(progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 1.0
        fraction = FEATURES_DONE + (METHOD_DONE - FEATURES_DONE) * share
        message = ", ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())
        work.report(fraction, progress.phase or plan.method.name, message)

    checkpoint = JobCheckpoint(
        work.service,
        work.claimed,
        ledger_sequence=plan.ledger_sequence,
        left_out={id.hex: sorted(positions) for id, positions in plan.left_out.items()},
        params=plan.params.model_dump(mode="json"),
    )
    return Context(
        device=work.device,
        seed=plan.request["seed"],
        memory=work.service.settings.jobs.memory_bytes,
        on_progress=tell,
        checkpoint=checkpoint,
    )


def _counter(work: Work, total: int, low: float, high: float, phase: str) -> Callable[[int], None]:
    """Hears of rows as they are done and reports the share of the job that they make."""
    done = 0

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        work.report(low + (high - low) * min(1.0, done / max(1, total)), phase, "")

    return tell


def _all_rows(work: Work) -> int:
    return sum(work.plan.sizes.values())


def _eval_rows(work: Work) -> int:
    return sum(work.plan.sizes[use.dataset_id] for use in work.plan.evaluate)
