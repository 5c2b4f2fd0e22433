"""A request that joins another brings its own due date: what both wait for goes by the earlier one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.config import Forget
from app.db import clock
from app.schemas.forget import Hold
from app.services.forget import decisions, states, sweeps
from app.services.models import taint
from app.tables import Job, Model, Version
from tests.services.asking import a_dataset_of, ask, key
from tests.services.learning import a_model, learn, rows


@pytest.fixture
def model(service, tenant, caller):
    data = a_dataset_of(service, tenant.id, rows(ant=2, bee=2), [["ada"], ["ben"], ["cleo"], ["dan"]])
    made = a_model(service, caller)
    learn(service, caller, made, [data])
    return made


@pytest.fixture
def patient(service):
    """The service of an operator who lets requests wait for others."""
    forget = Forget(batch_window_seconds=3600)
    return replace(service, settings=service.settings.model_copy(update={"forget": forget}))


def soon(**left):
    return datetime.now(UTC) + timedelta(**left)


def waiting_job(service):
    with service.db.read() as session:
        return session.scalars(select(Job).filter_by(kind="forget", state="queued")).one()


def test_it_hurries_the_job_that_waits_already(patient, caller, model):
    ask(patient, caller, ["ada"])
    assert waiting_job(patient).urgency == 0
    nearer = soon(minutes=5)
    assert ask(patient, caller, ["ada"], due_at=nearer.isoformat()).duplicate_of

    job = waiting_job(patient)
    assert job.urgency == -3
    assert max(abs(job.not_before - nearer), abs(job.deadline_at - nearer)) < timedelta(seconds=1)
    ask(patient, caller, ["ada"], due_at=soon(days=300).isoformat())
    assert waiting_job(patient).deadline_at == job.deadline_at


def test_it_counts_when_the_first_is_approved_and_tried_again(patient, tenant, model):
    clerk, chief = key(tenant.id, "forget:create"), key(tenant.id, "forget:approve")
    first = ask(patient, clerk, ["ada"])
    nearer = soon(minutes=5)
    gone, _ = (ask(patient, clerk, ["ada"], due_at=at.isoformat()) for at in (soon(minutes=2), nearer))
    decisions.cancel(patient, clerk, gone.id, None, None)
    decisions.approve_request(patient, chief, first.id, None)

    assert abs(waiting_job(patient).not_before - nearer) < timedelta(seconds=1)
    assert waiting_job(patient).urgency == -3


def test_the_sweep_sees_it_come_near(service, caller, model):
    ask(service, caller, ["ada"])
    joined = ask(service, caller, ["ada"])
    assert sweeps.keep_dates(service) == 0
    with service.db.begin() as session:
        [request] = states.lock(session, [joined.id])
        request.due_at = clock(session) + timedelta(days=6)
    assert sweeps.keep_dates(service) == 1
    assert waiting_job(service).urgency == -2


def test_a_tainted_version_serves_until_then_and_during_a_hold_of_the_first(service, caller, model):
    first = ask(service, caller, ["ada"])
    nearer = soon(days=3)
    ask(service, caller, ["ada"], due_at=nearer.isoformat())
    assert abs(served_until(service, model) - nearer) < timedelta(seconds=1)

    decisions.hold(service, caller, first.id, Hold(reason="suit"), None)
    assert served_until(service, model) is None


def served_until(service, model):
    with service.db.read() as session:
        version = session.scalars(select(Version).filter_by(model_id=model.id)).one()
        return taint.serving(session, session.get_one(Model, model.id), version, by_alias=True).due_at
