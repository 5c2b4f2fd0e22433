"""Models that update themselves: when what was sent for one becomes an update, and what is said of it.

Everything is decided under the lock of the model's row: in the transaction that stores a dataset, or in a
sweep of the scheduler, which also finds what the passing of time decides and what a crash left undecided.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import Forbidden, TooFewSamples, ValidationFailed
from app.schemas.policies import UpdatePolicy
from app.service import Caller, Service
from app.services.callers import audit
from app.services.jobs import Cause, State
from app.services.models import models
from app.services.policies import history, offers, policy_jobs, policy_settings
from app.services.policies.offers import Waiting
from app.tables import Dataset, Job, Model, Offer

log = logging.getLogger(__name__)

MOST_TRIES = 3  # jobs that may fail on a dataset before it is refused


def offer(service: Service, session: Session, caller: Caller, model_id: UUID, dataset: Dataset) -> list[Job]:
    """Count a dataset as sent for the model and decide; gives the jobs to ring for, if that started any."""
    model = models.get(session, caller.tenant_id, model_id, lock=True)
    models.fitting(session, model, dataset.id, "model")
    if not dataset.train_rows:
        raise TooFewSamples("the dataset has no rows of split train to learn from", pointer="model")
    if dataset.id == model.evaluation_id:
        raise ValidationFailed("this dataset measures the model: it cannot teach it", pointer="model")
    offers.take(session, model, dataset, clock(session))
    resources = {"dataset": dataset.id, "model": model.id}
    audit.record(
        session, tenant_id=model.tenant_id, actor=caller.actor, action="dataset.offered", resources=resources
    )
    return decide(service, session, model, arrived=dataset)


def check_offer(service: Service, caller: Caller, model_id: UUID) -> None:
    """Refuse before a body is read: no such model, or none that the caller may train."""
    if not caller.may("train"):
        raise Forbidden("sending rows for a model to learn needs scope train", pointer="model")
    with service.db.read() as session:
        models.get(session, caller.tenant_id, model_id)


def sweep(service: Service) -> int:
    """Settle what ended badly and start what time has made due; returns how many updates that were."""
    started = 0
    for tenant_id, model_id in offers.open_models(service):
        try:
            started += _look(service, tenant_id, model_id)
        except Exception:  # the edge: one model must not hold the others up
            log.exception("update policy not followed", extra={"model": model_id.hex})
    return started


def _look(service: Service, tenant_id: UUID, model_id: UUID) -> int:
    with service.db.begin() as session:
        model = models.get(session, tenant_id, model_id, lock=True)
        _settle(session, model)
        started = decide(service, session, model)
    for job in started:
        service.bell.ring(job.id, job.queue)
    return len(started)


def decide(service: Service, session: Session, model: Model, arrived: Dataset | None = None) -> list[Job]:
    """Start updates with what waits, or say why not. The caller holds the lock of the model's row."""
    policy, now = policy_settings.of(model), clock(session)
    found = offers.waiting(session, model)
    gone = [one for one in found if one.dataset.deleted_at is not None]
    for one in gone:
        policy_jobs.refuse(session, model, one.offer, "the dataset was deleted", "purged")
    ready = [one for one in found if one.rows and one.due <= now and one not in gone]
    fresh = [arrived.id] if arrived else []
    if policy is None or policy.when == "manual":
        if arrived:
            _wait(session, model, fresh, "updates of this model are started by hand")
        return []
    if not ready or not (why := _due(policy, model, ready, now)):
        if arrived:
            _wait(session, model, fresh, _until(policy, model, ready, now))
        return []
    try:
        scopes = policy_settings.scopes(session, model)
    except Forbidden as error:
        policy_jobs.hold_back(session, model, error.detail, error.code, fresh)
        return []
    return policy_jobs.start(service, session, model, policy, scopes, ready, why, fresh)


def _due(policy: UpdatePolicy, model: Model, ready: Sequence[Waiting], now: datetime) -> str:
    """Why an update starts now; empty where it does not."""
    first = min(one.offer.offered_at for one in ready)
    if policy.when == "schedule":
        return "its time came" if _beat(policy, model, now) > _beat(policy, model, first) else ""
    rows, wanted = sum(one.rows for one in ready), policy.min_rows or 1
    if rows >= wanted:
        return f"{rows} rows wait, {wanted} were asked for"
    longest = policy.max_wait_seconds
    if longest is not None and first + timedelta(seconds=longest) <= now:
        return f"the first dataset has waited {longest} seconds"
    return ""


def _beat(policy: UpdatePolicy, model: Model, at: datetime) -> int:
    """How many periods of the schedule had passed, from the time at which it was set."""
    assert policy.max_wait_seconds is not None
    assert model.policy_set_at is not None
    return (at - model.policy_set_at) // timedelta(seconds=policy.max_wait_seconds)


def _until(policy: UpdatePolicy, model: Model, ready: Sequence[Waiting], now: datetime) -> str:
    """What an update waits for."""
    if not ready:
        return "every row of it is restricted by a forget request"
    rows = sum(one.rows for one in ready)
    if policy.max_wait_seconds is None:
        return f"{rows} of {policy.min_rows} rows wait"
    period = timedelta(seconds=policy.max_wait_seconds)
    if policy.when == "schedule":
        assert model.policy_set_at is not None
        at = model.policy_set_at + period * (_beat(policy, model, now) + 1)
        return f"{rows} rows wait until {at:%Y-%m-%dT%H:%M:%SZ}"
    at = min(one.offer.offered_at for one in ready) + period
    return f"{rows} of {policy.min_rows or 1} rows wait, at the latest until {at:%Y-%m-%dT%H:%M:%SZ}"


def _wait(session: Session, model: Model, datasets: Sequence[UUID], reason: str) -> None:
    history.note(session, model, "waited", reason, actor=policy_settings.actor(model), datasets=datasets)


def _settle(session: Session, model: Model) -> None:
    """Let what a job did not learn wait again, unless that was somebody's wish or has failed too often."""
    for job in offers.ended_jobs(session, model.id):
        left = offers.of_job(session, job.id)
        if job.state == State.SUCCEEDED:
            offers.learned(session, model.id, [one.dataset_id for one in left])
            continue
        blamed = _blamed(job, left)
        again = [
            one
            for one in left
            if job.state == State.FAILED and one is not blamed and (blamed or one.tries < MOST_TRIES)
        ]
        for one in left:
            one.state = offers.WAITING if one in again else offers.REFUSED
            one.tries -= int(blamed is not None)  # the fault of one costs the others nothing
        cause = (job.error or {}).get("cause", Cause.INTERNAL)
        pause = max((offers.pause(one.tries) for one in again), default=timedelta())
        soon = f" in {pause.total_seconds():.0f} s" if pause else ""
        then = f"is tried again{soon}" if again else "is not tried again"
        history.note(
            session,
            model,
            "failed",
            f"{ids.encode('job', job.id)} is {job.state}; what waited for it {then}",
            code=str(cause),
            actor=job.actor,
            datasets=[one.dataset_id for one in left],
            job_id=job.id,
        )
        if blamed is not None:
            policy_jobs.refuse(session, model, blamed, "the update failed on this dataset", str(cause))


def _blamed(job: Job, left: Sequence[Offer]) -> Offer | None:
    """The dataset that a job failed on, where its error names one."""
    error = job.error or {}
    if error.get("cause") != Cause.INVALID_INPUT or not error.get("errors"):
        return None
    at = policy_jobs.place(error["errors"][0]["pointer"])
    if at is None or at >= len(job.request["datasets"]):
        return None
    return next((one for one in left if one.dataset_id.hex == job.request["datasets"][at]), None)
