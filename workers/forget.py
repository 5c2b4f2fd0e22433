"""One forget job, from the erasures that it takes to the versions that are without them, top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import torch
from sqlalchemy import select

from app import ids
from app.db import touch
from app.methods.base import Unfit
from app.methods.unlearning.exact import NothingLeft
from app.service import Service
from app.services import jobs
from app.services.datasets import features
from app.services.forget import lacking, states
from app.services.forget import replace as replacing
from app.services.forget.replace import Replacement
from app.services.jobs import ClaimedJob
from app.services.models import models, publish, retention, snapshots, versions
from app.services.models.publish import Draft, Edge, Shared
from app.tables import ModelClass, Version, VersionClass
from app.vault import new_key
from workers import forget_checks, forget_entries, forget_lacks, publishing, replay, retrain
from workers.forget_checks import Panel
from workers.forget_plan import Task
from workers.forgetting import Forgetting, Tell
from workers.progress import Reporter, Superseded
from workers.replay import Remade

PLANNED, MADE, MEASURED = 0.1, 0.85, 0.95  # shares of the whole job


@dataclass(frozen=True)
class Prepared:
    """A version's replacement with its bytes stored, or why there is none."""

    task: Task
    draft: Draft | None
    made: Remade | None
    reason: str = ""


def run(service: Service, claimed: ClaimedJob, report: Reporter) -> None:
    """Replace every usable version of the model that knows what goes; all of them or none."""
    report(0.0, "locating", "")
    entries = forget_entries.take(service, claimed)
    plan = forget_lacks.make(service, claimed, entries, lambda: report(0.0, "locating", ""))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job = Forgetting(service, claimed, plan, device)
    prepared: list[Prepared] = []
    try:
        for i, task in enumerate(plan.tasks):
            job.tell = _part(report, i, len(plan.tasks))
            prepared.append(_prepare(job, task, prepared))
        _enter(job, "verifying")
        report(MADE, "verifying", "")
        replacements = _measure(job, prepared, report)
        _enter(job, "publishing")
        report(MEASURED, "publishing", "")
    except BaseException:
        _discard(job, prepared)
        raise
    publishing.patiently(lambda: _publish(job, replacements), lambda: _discard(job, prepared))


def _part(report: Reporter, index: int, count: int) -> Tell:
    """Hears of one version's share, and says which part of the job that is."""
    size = (MADE - PLANNED) / count

    def tell(share: float, phase: str, message: str) -> None:
        report(PLANNED + size * (index + share), phase, message)

    return tell


def _prepare(job: Forgetting, task: Task, before: Sequence[Prepared]) -> Prepared:
    """Make one replacement and store its bytes: the version's files, then its key object."""
    job.tell(0.0, "unlearning", f"version {task.old.number}")
    if task.way.kind == "drop":
        return Prepared(task, None, None, task.way.reason)
    try:
        made = replay.remake(job, task)
    except NothingLeft as error:
        return Prepared(task, None, None, str(error))
    except Unfit as error:
        return Prepared(task, None, None, f"what remains has no head of this kind: {error}")
    job.tell(1.0, "saving", f"version {task.old.number}")
    owner = made.features is not None and not any(
        one.made and one.made.features is made.features for one in before
    )
    draft = _save(job, task, made, owner=owner)
    return Prepared(task, draft, replace(made, after=replace(made.after, statistics=None)))


def _save(job: Forgetting, task: Task, made: Remade, *, owner: bool) -> Draft:
    """`owner`: it is the first on a network that was trained anew, which lies in its file."""
    service, old, version_id, key_id = job.service, task.old, ids.new(), ids.new()
    if task.statistics_only:
        assert made.after.statistics is not None
        saved = snapshots.save_statistics(service, made.after.statistics, new_key())
    else:
        saved = snapshots.save(service, made.after, trained_network=owner, key=new_key())
    service.vault.write_key(key_id, saved.key)
    return Draft(
        id=version_id,
        model_id=old.model_id,
        tenant_id=old.tenant_id,
        snapshot=replace(made.after, statistics=None, weights={}),
        saved=saved,
        key_id=key_id,
        method=old.method,
        params=old.params,
        seed=old.seed,
        replaces_id=old.id,
        retired=task.statistics_only,
        job_id=job.claimed.id,
        feature_map_id=None if made.features is not None else old.feature_map_id,
        feature_source=features.trained_source(version_id),
        ledger_sequence=job.plan.entries.sequence,
        shards=[shard for some in (made.features or {}).values() for shard in some] if owner else (),
        base_centroids=_shared_with(job, task, made),
        report=dict(made.report),
    )


def _shared_with(job: Forgetting, task: Task, made: Remade) -> Mapping[str, Shared]:
    """The centroids of its parent as they are stored, where that stays; they are shared where equal."""
    parent_id, centroids = task.old.parent_id, made.after.centroids
    if parent_id is None or not centroids or any(other.old.id == parent_id for other in job.plan.tasks):
        return {}
    with job.service.db.read() as session:
        parent = session.get_one(Version, parent_id)
        stays = parent.state == "ready" and parent.feature_map_id == task.old.feature_map_id
    if not stays or made.features is not None:
        return {}
    known = snapshots.load(job.service, parent_id).snapshot.centroids
    with job.service.db.read() as session:
        return publish.shared(session, parent_id, known)


def _measure(job: Forgetting, prepared: Sequence[Prepared], report: Reporter) -> list[Replacement]:
    """Metrics and checks of every replacement, and what is said of each version in the requests."""
    panel = Panel(job.service, job.plan, lambda: report(MADE, "verifying", ""))
    metrics: dict[UUID, Mapping[str, Any]] = {}  # by the version that is replaced
    found = []
    for one in prepared:
        task, made, draft = one.task, one.made, one.draft
        detail: dict[str, Any] = {"way": task.way.kind, "guarantee": "exact", "reason": task.way.reason}
        if made is None or draft is None:
            detail |= {"way": "drop", "reason": one.reason, "checks": {}, "seconds": 0.0}
            found.append(Replacement(task.old.id, task.requests, detail, None))
            continue
        detail |= {"way": made.kind, "checks": _checks(job, one), "seconds": round(made.seconds, 3)}
        counts: Mapping[UUID, int] = {}
        if not task.statistics_only:
            known, earlier = _history(job, task, metrics)
            measured = panel.measure(
                made.after, task, known & set(made.after.classes), earlier, made.features
            )
            metrics[task.old.id], counts = measured.metrics, measured.rows
            draft = replace(draft, metrics=measured.metrics)
        draft = replace(draft, edges=_edges(job, task, counts), seconds=round(made.seconds, 3))
        trained = task.trainer.id if task.trainer and made.features is not None else None
        found.append(Replacement(task.old.id, task.requests, detail, draft, trained))
    return found


def _checks(job: Forgetting, one: Prepared) -> dict[str, Any]:
    """What was verified: the bound of the solve, «old sums = new sums + forgotten», counts, accuracy."""
    task, made = one.task, one.made
    assert made is not None
    forgotten = sum(map(len, task.learned.values()))
    checks: dict[str, Any] = {"rows_forgotten": forgotten}
    sent = job.plan.forgotten[task.old.feature_map_id].sent
    if again := sum(len(rows & sent.get(id, frozenset())) for id, rows in task.learned.items()):
        checks["rows_sent_again"] = again
    if "error_bound" in made.report:
        checks["error_bound"] = forget_checks.decade(made.report["error_bound"])
    if made.identity is not None:
        checks |= {
            "identity": made.identity.holds,
            "rows_before": made.identity.rows_before,
            "rows_after": made.identity.rows_after,
        }
    if not task.statistics_only and forgotten:
        checks |= forget_checks.on_rows(job.service, job.plan, task, made.after, made.features)
    return checks


def _history(
    job: Forgetting, task: Task, measured: Mapping[UUID, Mapping[str, Any]]
) -> tuple[frozenset[str], tuple[Mapping[str, float | None], ...]]:
    """The classes that its parent knew, and the accuracy per class of its ancestors, youngest first."""
    earlier = []
    with job.service.db.read() as session:
        known = session.scalars(
            select(ModelClass.name)
            .join(VersionClass, VersionClass.class_id == ModelClass.id)
            .where(VersionClass.version_id == task.old.parent_id)
        ).all()
        at = task.old.parent_id
        while at is not None:
            row = session.get_one(Version, at)
            newest = versions.replacement(session, row) or row
            earlier.append(measured.get(at, newest.metrics).get("per_class", {}))
            at = row.parent_id
    return frozenset(known), tuple(earlier)


def _edges(job: Forgetting, task: Task, measured: Mapping[UUID, int]) -> list[Edge]:
    """The lineage of a replacement: what the old version used, less what goes."""
    gone, found = job.plan.entries.all_rows, []
    for edge in task.edges:
        id = edge.dataset_id
        left_out = frozenset(edge.left_out) | gone.get(id, frozenset())
        count = edge.rows
        if edge.role == "train":
            count -= len(task.learned.get(id, ()))
        elif edge.role == "evaluate" and not edge.inherited:
            count = measured.get(id, 0)
        if count > 0:
            found.append(Edge(id, edge.role, count, tuple(sorted(left_out)), inherited=edge.inherited))
    return found


def _enter(job: Forgetting, stage: str) -> None:
    """Say in the requests that the job is at a stage."""
    with job.service.db.begin() as session:
        jobs.guard(session, job.claimed)
        states.enter(session, job.plan.entries.taken, job.plan.model.id, stage)
        touch(session)


def _publish(job: Forgetting, replacements: Sequence[Replacement]) -> None:
    """The facts, all or none, guarded by the fencing number."""
    claimed, plan = job.claimed, job.plan
    actor = f"job:{claimed.id.hex}"
    with job.service.db.begin() as session:
        jobs.guard(session, claimed)
        model = models.get(session, claimed.tenant_id, plan.model.id, lock=True)
        if not retrain.still_as_sent(job, session):
            raise Superseded("Rows were erased from a dataset while it was put through the new network.")
        lines = replacing.publish_all(
            job.service,
            session,
            model,
            replacements,
            classes=plan.entries.all_classes.keys(),
            taken=plan.entries.taken,
            actor=actor,
        )
        counts = {
            "replaced": sum(line["replacement"] is not None for line in lines),
            "dropped": sum(line["replacement"] is None for line in lines),
        }
        seen = {id: (one.count, one.unmatched) for id, one in plan.sent.items() if one.known is not None}
        lacking.note_sent(session, {id: seen[id] for id in seen.keys() & set(plan.entries.taken)})
        erase = states.model_done(session, model.id, plan.entries.taken, counts)
        retire = retention.retire(session, model, actor=actor)
        done = [
            {"version": line["number"], "replacement": line["replacement"], "way": line["way"]}
            for line in lines
        ]
        jobs.finish(session, claimed, {**counts, "versions": done})
    for purge in (erase, retire):
        if purge is not None:
            job.service.bell.ring(purge.id, purge.queue)


def _discard(job: Forgetting, prepared: Sequence[Prepared]) -> None:
    """Destroy the bytes that no row names."""
    for one in prepared:
        if one.draft is not None:
            job.service.vault.destroy(one.draft.key_id, *one.draft.saved.files)
    job.discard()
