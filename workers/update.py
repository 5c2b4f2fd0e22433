"""One update job, from the rows to the published version, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from app import ids
from app.errors import ValidationFailed
from app.methods.base import Unfit
from app.service import Service
from app.services import jobs
from app.services.datasets import features, shards
from app.services.jobs import ClaimedJob
from app.services.models import models, publish, retention, snapshots
from app.services.models.publish import Draft, Shared
from app.services.policies import policy_outcomes
from app.vault import new_key
from workers import plan as plans
from workers import publishing
from workers.learn import MEASURED, Made, Work, learn, load_base
from workers.progress import Reporter, Superseded


def run(service: Service, claimed: ClaimedJob, report: Reporter) -> None:
    """Learn the datasets of a claimed job and publish the version; all of it or nothing."""
    started = time.monotonic()
    report(0.0, "loading", "")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = Work(service, claimed, plans.make(service, claimed), report, device)
    before, shared = load_base(work)
    try:
        made = learn(work, before)
    except Unfit as error:
        raise ValidationFailed(str(error), pointer=error.field) from None
    report(MEASURED, "saving", "")
    draft = _save(work, made, shared, time.monotonic() - started)
    known = frozenset(before.classes)
    publishing.patiently(lambda: _publish(work, draft, known), lambda: _discard(work, draft))


def _save(work: Work, made: Made, shared: Mapping[str, Shared], seconds: float) -> Draft:
    """Bytes first: the version's file, then its key object. The draft names them."""
    plan, outcome, version_id, key_id = work.plan, made.outcome, ids.new(), ids.new()
    saved = snapshots.save(
        work.service, outcome.after, trained_network=plan.method.trains_network, key=new_key()
    )
    work.service.vault.write_key(key_id, saved.key)
    return Draft(
        id=version_id,
        model_id=plan.model.id,
        tenant_id=plan.model.tenant_id,
        snapshot=outcome.after,
        saved=saved,
        key_id=key_id,
        method=plan.method.name,
        params=plan.params.model_dump(mode="json"),
        seed=plan.request["seed"],
        base_id=plan.base.id if plan.base else None,
        job_id=work.claimed.id,
        feature_map_id=plan.feature_map_id,
        feature_source=features.trained_source(version_id),
        ledger_sequence=plan.ledger_sequence,
        edges=plans.edges(plan, made.learned.counts, made.measured.rows, made.selected),
        left_out=plan.left_out,
        classes_out=plan.classes_out,
        shards=made.shards,
        base_centroids=shared,
        metrics=made.measured.metrics,
        report=dict(outcome.report),
        seconds=round(seconds, 3),
    )


def _publish(work: Work, draft: Draft, known_before: frozenset[str]) -> None:
    """The facts, all or none: guarded by the fencing number and by the ledger."""
    claimed = work.claimed
    with work.service.db.begin() as session:
        jobs.guard(session, claimed)
        model = models.get(session, claimed.tenant_id, draft.model_id, lock=True)
        if not publish.still_holds(session, draft):
            raise Superseded("Rows that the job used were restricted or erased meanwhile.")
        actor = f"job:{claimed.id.hex}"
        version = publish.insert(work.service, session, model, draft, actor)
        promotion = policy_outcomes.promote(session, claimed, model, version, known_before)
        jobs.finish(session, claimed, _result(work, draft, version.number, promotion, known_before))
        purge = retention.retire(session, model, actor=actor)  # after that: an update spares its base
    if purge is not None:
        work.service.bell.ring(purge.id, purge.queue)


def _discard(work: Work, draft: Draft) -> None:
    """Destroy the bytes that no row names."""
    work.service.vault.destroy(draft.key_id, *draft.saved.files)
    shards.discard(work.service, draft.shards)


def _result(
    work: Work,
    draft: Draft,
    number: int,
    promotion: publish.Promotion,
    known_before: frozenset[str],
) -> dict[str, Any]:
    return {
        "version": number,
        "version_id": ids.encode("ver", draft.id),
        "classes_added": [name for name in draft.snapshot.classes if name not in known_before],
        "left_out": sum(len(positions) for positions in work.plan.left_out.values()),
        "metrics": dict(draft.metrics),
        "alias": promotion.alias,
        "gates": promotion.gates,
        "not_promoted": promotion.reason or None,
    }
