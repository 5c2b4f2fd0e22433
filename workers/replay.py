"""Making a version without rows: its sums less theirs, its own step learned again, or everything made anew.

The methods are those that learn, on the same stored features: nothing is warmer than it was the first time.
A step reads of the version it builds on nothing but sums, and these are known without what came between: so
no retired version in between is needed, and no row of other steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.methods import networks
from app.methods.base import Context, Outcome, Rows, Snapshot, Split
from app.methods.parts.centroids import by_key
from app.methods.unlearning import exact
from app.methods.unlearning.exact import Identity, Misfit, NothingLeft, Sums
from app.services.datasets import features, shards
from app.services.forget import ways
from app.services.models import snapshots
from workers import learn, retrain, rows
from workers.forget_plan import Task
from workers.forgetting import Forgetting, context, learning
from workers.rows import MadeFeatures

Tell = Callable[[float, str, str], None]


@dataclass(frozen=True)
class Remade:
    """A version without the rows; `identity` where its sums came by subtraction."""

    after: Snapshot
    report: Mapping[str, Any]
    kind: str  # the way that was gone
    identity: Identity | None = None
    features: MadeFeatures | None = None  # of the new map
    seconds: float = 0.0


def remake(job: Forgetting, task: Task) -> Remade:
    """The version of a task without what goes. Raises `NothingLeft` and `Unfit` where there is none."""
    started = time.monotonic()
    made = _remake(job, task)
    return replace(made, seconds=time.monotonic() - started)


def _remake(job: Forgetting, task: Task) -> Remade:
    if task.way.kind == "retrain":
        return _anew(job, task)
    try:
        return _statistics_only(job, task) if task.statistics_only else _less(job, task)
    except Misfit:
        return _anew(job, task)  # the stored sums are not of rows that are stored: those that are decide


def _less(job: Forgetting, task: Task) -> Remade:
    """Its sums less those of the rows, and its head made of them or of its own rows again."""
    service, old_id = job.service, task.old.id
    old = snapshots.load(service, old_id, statistics=task.old.statistics_file_id is not None).snapshot
    select = _chosen_on(job, task, None)
    if not task.learned and not task.lost:
        again = task.select is not None and _loses(task, "select")
        outcome = (
            _headed(job, task, replace(old, head=None), select) if again else Outcome(old, task.old.report)
        )
        return Remade(outcome.after, outcome.report, "subtract")
    taken, again_taken = _sums_of(job, task, old)
    cleaned = _without_classes(exact.without(old, taken), task.lost)
    outcome = _headed(job, task, cleaned, select)
    count = sum(map(len, task.learned.values()))
    identity = (
        exact.identity(old, outcome.after, again_taken, count)
        if not _lost_more(old, cleaned, taken)
        else None
    )
    if identity is not None and not identity.holds:
        raise Misfit("old sums are not new sums and those of the forgotten rows")
    return Remade(outcome.after, outcome.report, task.way.kind, identity)


def _headed(job: Forgetting, task: Task, cleaned: Snapshot, select: Rows | None) -> Outcome:
    """The head of these sums."""
    assert task.method is not None
    assert task.params is not None
    ctx = context(job, task.old)
    if ways.is_function_of_sums(task.method):
        return exact.remade(cleaned, task.method, task.params, ctx, select)
    own = rows.collect(job.service, learning(job, task.old, task.old.feature_map_id), task.own).rows
    return exact.learned_again(cleaned, own, task.method, task.params, ctx, select)


def _anew(job: Forgetting, task: Task) -> Remade:
    """Everything from the rows that stay: the network where it saw those that go, sums, and head."""
    if not task.whole:
        raise NothingLeft("rows that would have to be read are not stored any more")
    network = None if task.trainer is None else retrain.network_of(job, task)
    if network is not None and task.trainer is not None and task.trainer.id == task.old.id:
        return Remade(network.outcome.after, network.outcome.report, "retrain", features=network.features)
    assert task.method is not None
    assert task.params is not None
    made = None if network is None else network.features
    plan = learning(job, task.old, task.old.feature_map_id)
    start = learn.as_created(job.service, job.plan.model)
    if network is not None:
        start = replace(start, weights=network.outcome.after.weights)
    else:
        _ensure_features(job, task)
    everything = rows.collect(job.service, plan, task.everything, made).rows
    select = _chosen_on(job, task, made)
    ctx = context(job, task.old)
    if not len(everything.labels):
        raise NothingLeft("no row would be left")
    if ways.is_function_of_sums(task.method):
        outcome = exact.from_rows(start, everything, task.method, task.params, ctx, select)
    else:
        sums = exact.sums(start, everything, ctx)
        cleaned = replace(start, classes=by_key(sums.centroids), centroids=sums.centroids)
        own = rows.collect(job.service, plan, task.own, made).rows
        outcome = exact.learned_again(cleaned, own, task.method, task.params, ctx, select)
    if task.lost & set(outcome.after.classes):
        raise Misfit("rows of a class that goes were not located")
    return Remade(outcome.after, outcome.report, "retrain", features=made)


def _ensure_features(job: Forgetting, task: Task) -> None:
    """Features of all that the version reads, made again where a restore found them gone."""
    map_id = task.old.feature_map_id
    used = [*task.everything, *task.evaluate, *([task.select] if task.select else [])]
    missing = {use.dataset_id for use in used if not shards.has_map(job.service, use.dataset_id, map_id)}
    if missing:
        created = learn.as_created(job.service, job.plan.model)
        weights = snapshots.network_of(job.service, task.old.id)
        network = networks.load(created.network, created.input, weights)
        for id in sorted(missing):
            features.ensure(job.service, id, map_id, network, created.grid, job.device, lambda _: None)


def _statistics_only(job: Forgetting, task: Task) -> Remade:
    """Statistics that a retired version keeps for those that build on it, less the rows'."""
    known = snapshots.statistics_of(job.service, task.old.id)
    bare = replace(learn.as_created(job.service, job.plan.model), statistics=known, weights={})
    taken, again = _sums_of(job, task, bare)
    assert taken.statistics is not None
    assert again.statistics is not None
    left = exact.subtracted(known, taken.statistics)
    if task.lost & set(left.classes):
        raise Misfit("rows of a class that goes are not stored any more")
    if not exact.same(left.merge(again.statistics), known):
        raise Misfit("old statistics are not new ones and those of the forgotten rows")
    return Remade(replace(bare, classes=left.classes, statistics=left), {}, "subtract")


def _without_classes(cleaned: Snapshot, lost: frozenset[str]) -> Snapshot:
    """Without classes of which rows are left that are not stored any more: a centroid goes by itself, a share
    of statistics does not."""
    if not (over := lost & set(cleaned.classes)):
        return cleaned
    if cleaned.statistics is not None:
        raise Misfit("rows of a class that goes are not stored any more")
    kept = {name: one for name, one in cleaned.centroids.items() if name not in over}
    if len(kept) < 2:
        raise NothingLeft("fewer than two classes would be left")
    return replace(cleaned, classes=by_key(kept), centroids=kept)


def _lost_more(old: Snapshot, cleaned: Snapshot, taken: Sums) -> bool:
    """Whether a class went with rows that were not read."""
    return any(
        old.centroids[name].count != (taken.centroids[name].count if name in taken.centroids else 0)
        for name in set(old.centroids) - set(cleaned.centroids)
    )


def _sums_of(job: Forgetting, task: Task, version: Snapshot) -> tuple[Sums, Sums]:
    """What the rows of a task add up to, taken twice, the second time in another order; kept for versions
    that learned the same ones."""
    key = (
        task.old.feature_map_id,
        version.statistics is not None,
        frozenset((id, positions) for id, positions in task.learned.items()),
    )
    if key not in job.sums:
        stored = job.plan.forgotten[task.old.feature_map_id]
        found = stored.rows(task.learned, regression=job.plan.regression)
        ctx = Context()
        job.sums[key] = exact.sums(version, found, ctx), exact.sums(version, _reversed(found), ctx)
    return job.sums[key]


def _reversed(found: Rows) -> Rows:
    blocks = [block[::-1] for block in found.blocks()][::-1]
    targets = None if found.targets is None else found.targets[::-1]
    return Rows(found.classes, found.labels[::-1], lambda: iter(blocks), targets)


def _chosen_on(job: Forgetting, task: Task, features: MadeFeatures | None) -> Rows | None:
    """The rows that parameters are chosen on, where the version chose some."""
    if task.select is None or task.method is None or Split.SELECT not in task.method.may_use:
        return None
    plan = learning(job, task.old, task.old.feature_map_id)
    return rows.collect(job.service, plan, [task.select], features).rows


def _loses(task: Task, role: str) -> bool:
    """Whether an edge of this role uses a row that goes."""
    left_out = {edge.dataset_id: frozenset(edge.left_out) for edge in task.edges if edge.role == role}
    uses = (task.select,) if role == "select" and task.select else task.evaluate
    return any(use.without - left_out.get(use.dataset_id, frozenset()) for use in uses)
