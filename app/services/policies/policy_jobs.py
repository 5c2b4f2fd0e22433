"""The job that a policy starts: checked like one that a caller posts, joined to one that still waits."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids, methods
from app.db import clock
from app.errors import AppError, ClassNameConflict, ValidationFailed
from app.schemas.policies import UpdatePolicy
from app.schemas.updates import UpdateCreate
from app.service import Service
from app.services import jobs
from app.services.callers import audit
from app.services.models import updates
from app.services.models.updates import Ground
from app.services.policies import history, offers, policy_settings
from app.services.policies.offers import Waiting
from app.tables import Job, JobDataset, Model, Offer

MOST = 100  # datasets of one update
QUIET = {  # problems whose own words quote labels, which a history must not keep
    ClassNameConflict: "it brings a class that the model has",
    ValidationFailed: "its labels, or theirs beside those of others, cannot be told apart",
}

Request = dict[str, Any]


def start(
    service: Service,
    session: Session,
    model: Model,
    policy: UpdatePolicy,
    scopes: frozenset[str],
    ready: Sequence[Waiting],
    why: str,
    fresh: Sequence[UUID],
) -> list[Job]:
    """Updates with all that fits, one after another where it is too much for one; gives their jobs, but those
    of others that still wait and took some."""
    alias = policy.alias
    if alias is not None and not policy_settings.has_alias(session, model, alias):
        hold_back(session, model, f"there is no alias {alias!r} any more", "not-found", fresh)
        return []
    shape = _request(policy, scopes)
    parts = [ready[at : at + MOST] for at in range(0, len(ready), MOST)]
    if len(parts) > 1:
        why = f"{why}; {len(ready)} datasets wait, an update takes {MOST}"
    made = [_start_one(service, session, model, shape, part, why, fresh) for part in parts]
    return [job for job in made if job is not None]


def _start_one(
    service: Service,
    session: Session,
    model: Model,
    shape: Request,
    ready: Sequence[Waiting],
    why: str,
    fresh: Sequence[UUID],
) -> Job | None:
    """One update with all of these that fits; gives its job, or none where one that still waits took it."""
    mine = {one.id for one in ready}
    chosen = _fitting(service, session, model, shape, ready, [id for id in fresh if id in mine])
    if not chosen:
        return None
    job = _waiting_job(service, session, model, shape, chosen)
    if job is None:
        job, event = _new_job(service, session, model, shape, chosen), "started"
    else:
        _join(session, job, chosen)
        event = "joined"
    offers.start([one.offer for one in chosen], job.id)
    named = [one.id for one in chosen]
    actor = policy_settings.actor(model)
    alias = shape["alias"]
    history.note(session, model, event, why, actor=actor, datasets=named, job_id=job.id, alias=alias)
    return job if event == "started" else None


def refuse(session: Session, model: Model, offer: Offer, reason: str, code: str) -> None:
    """A dataset that this model cannot learn; sent again, it is looked at again."""
    offer.state = offers.REFUSED
    actor = policy_settings.actor(model)
    history.note(session, model, "refused", reason, code=code, actor=actor, datasets=[offer.dataset_id])


def hold_back(session: Session, model: Model, reason: str, code: str, fresh: Sequence[UUID]) -> None:
    """Nothing starts, and all waits on; said once, and again for a dataset that arrives."""
    last = history.newest(session, model.id)
    if not fresh and last is not None and (last.event, last.reason) == ("held-back", reason):
        return
    actor = policy_settings.actor(model)
    history.note(session, model, "held-back", reason, code=code, actor=actor, datasets=fresh)


def _request(policy: UpdatePolicy, scopes: frozenset[str]) -> Request:
    """The request of an update without its datasets; `policy` tells it from one that a caller posted."""
    body = UpdateCreate.model_construct(
        datasets=[],
        method=policy.method,
        base=None,
        alias=policy.alias,
        evaluation=None,
        on_conflict=policy.on_conflict,
        seed=0,
    )
    may_promote = bool(policy_settings.PROMOTES & scopes)
    return {**updates.request_of(body, may_promote=may_promote), "policy": True}


def _with(shape: Request, datasets: Sequence[str]) -> Request:
    return {**shape, "datasets": list(datasets)}


def _fitting(
    service: Service,
    session: Session,
    model: Model,
    shape: Request,
    ready: Sequence[Waiting],
    fresh: Sequence[UUID],
) -> list[Waiting]:
    """What can be learned together: a dataset that cannot is refused, a fault of the rest holds all back."""
    method = methods.BY_NAME[shape["method"]["name"]]
    queued = jobs.waiting_on(session, model.id)
    chosen = list(ready)
    ground: Ground | None = None

    def fault(of: Sequence[Waiting]) -> AppError | None:
        nonlocal ground
        request = _with(shape, [one.id.hex for one in of])
        try:
            ground = ground or updates.survey(session, model, request)
            part = replace(ground, datasets=[one.dataset for one in of])
            updates.check(session, part, method, request, service.settings, queued)
        except AppError as error:
            return error
        return None

    while chosen and (error := fault(chosen)) is not None:
        at = _at(error)
        if at is None and _too_much(error):  # whichever is the first that is too much, the oldest come first
            at = bisect_left(range(1, len(chosen)), True, key=lambda n: _too_much(fault(chosen[:n])))
        if at is None:
            hold_back(session, model, error.detail, error.code, fresh)
            return []
        reason = QUIET.get(type(error), error.detail) if _at(error) is not None else error.detail
        refuse(session, model, chosen.pop(at).offer, reason, error.code)
    return chosen


def _fault(service: Service, session: Session, model: Model, request: Request) -> AppError | None:
    """What an update of this request would be refused for now."""
    method = methods.BY_NAME[request["method"]["name"]]
    try:
        ground = updates.survey(session, model, request)
        updates.check(session, ground, method, request, service.settings, jobs.waiting_on(session, model.id))
    except AppError as error:
        return error
    return None


def _at(error: AppError) -> int | None:
    """The dataset whose fault it is, by the pointer of the first fault."""
    return place(error.errors[0].pointer) if error.errors else None


def place(pointer: str) -> int | None:
    """Which of a request's datasets a pointer names."""
    found = re.fullmatch(r"/datasets/(\d+)", pointer)
    return int(found[1]) if found else None


def _too_much(error: AppError | None) -> bool:
    """Whether datasets are refused for what they are together, which more of them would not mend."""
    return (
        isinstance(error, ValidationFailed) and bool(error.errors) and error.errors[0].pointer == "/datasets"
    )


def _waiting_job(
    service: Service, session: Session, model: Model, shape: Request, chosen: Sequence[Waiting]
) -> Job | None:
    """An update of the same policy that no worker has seen yet and that can take these too.

    A row that somebody holds is passed by: a claim, or a cancellation, is on its way to it.
    """
    rows = session.scalars(
        select(Job)
        .where(Job.lane == model.id, Job.kind == "update", Job.state == jobs.State.QUEUED)
        .where(Job.lease_epoch == 0, Job.retry_of.is_(None))
        .order_by(Job.created_at, Job.id)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    for job in rows:
        together = _with(shape, [*job.request["datasets"], *(one.id.hex for one in chosen)])
        same = _with(job.request, []) == shape and job.actor == policy_settings.actor(model)
        if same and len(together["datasets"]) <= MOST and not _fault(service, session, model, together):
            return job
    return None


def _join(session: Session, job: Job, chosen: Sequence[Waiting]) -> None:
    """Add datasets to a job that is queued and held."""
    job.request = _with(job.request, [*job.request["datasets"], *(one.id.hex for one in chosen)])
    job.revision += 1
    session.add_all(JobDataset(job_id=job.id, dataset_id=one.id, role="train") for one in chosen)
    joined = ", ".join(ids.encode("dst", one.id) for one in chosen)
    jobs.say(session, job.id, clock(session), "log", {"message": f"joined by {joined}"})
    session.flush()


def _new_job(
    service: Service, session: Session, model: Model, shape: Request, chosen: Sequence[Waiting]
) -> Job:
    request: Mapping[str, Any] = _with(shape, [one.id.hex for one in chosen])
    ground = updates.survey(session, model, dict(request))
    selects = methods.BY_NAME[request["method"]["name"]].selects(request["method"]["params"])
    job = jobs.new_job(
        session,
        tenant_id=model.tenant_id,
        kind="update",
        queue=service.settings.jobs.update_queue,
        lane=model.id,
        urgency=jobs.Urgency.ON_LANE,
        model_id=model.id,
        resource_id=None,
        request=request,
        actor=policy_settings.actor(model),
        request_id=None,
        datasets=updates.roles(ground, selects),
        max_attempts=service.settings.jobs.max_attempts,
    )
    audit.record(
        session,
        tenant_id=model.tenant_id,
        actor=job.actor,
        action="update.requested",
        resources={"model": model.id, "job": job.id},
    )
    return job
