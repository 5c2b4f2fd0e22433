"""When what was sent for a model becomes an update."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from app.db import clock
from app.services.models import snapshots
from app.services.policies import policies
from app.tables import Offer
from tests.services.learning import (
    a_model,
    rows,
    run_next,
)
from tests.services.policies.following import (
    BASE,
    a_policy_model,
    change,
    events,
    lines,
    named,
    offer,
    pass_time,
    the_version,
    train_edges,
    updates_of,
    with_policy,
)
from tests.services.sent import send


def test_starts_in_the_transaction_that_stores_the_dataset(service, caller):
    model = a_policy_model(service, caller)
    row = send(service, caller, model_id=model.id, x=[[0, 0, 1, 0]] * 3, label=["cat"] * 3)

    (queued,) = updates_of(service, model)
    assert named(queued) == {row.id}
    assert queued.actor == caller.actor
    (line,) = lines(service, caller, model)
    assert (line.event, line.job, line.datasets) == ("started", queued.id, [row.id])
    version = the_version(service, run_next(service))
    assert version.number == 2
    assert "cat" in snapshots.load(service, version.id).snapshot.classes


def test_waits_for_enough_rows_and_learns_them_in_one_version(service, caller):
    model = a_policy_model(service, caller, min_rows=7)
    first = offer(service, caller, model, rows(cat=4))
    assert updates_of(service, model) == []
    second = offer(service, caller, model, rows(dog=3), seed=1)

    (queued,) = updates_of(service, model)
    assert named(queued) == {first.id, second.id}
    version = the_version(service, run_next(service))
    assert train_edges(service, version) >= {first.id, second.id}
    assert events(service, caller, model) == ["waited", "started", "published"]
    assert "4 of 7 rows" in lines(service, caller, model)[0].reason


def test_waits_no_longer_than_was_said(service, caller):
    model = a_policy_model(service, caller, min_rows=100, max_wait_seconds=60)
    offer(service, caller, model, rows(cat=4))
    assert policies.sweep(service) == 0
    pass_time(service, model, 59)
    assert policies.sweep(service) == 0
    pass_time(service, model, 2)
    assert policies.sweep(service) == 1
    assert policies.sweep(service) == 0
    assert events(service, caller, model) == ["waited", "started"]


@pytest.mark.parametrize("when", ["on_dataset", "schedule"])
def test_honours_a_wait_shorter_than_a_sweep_at_the_next_sweep(service, caller, when):
    rows_wanted = {"min_rows": 100} if when == "on_dataset" else {}
    model = a_policy_model(service, caller, when=when, max_wait_seconds=1, **rows_wanted)
    row = offer(service, caller, model, rows(cat=4))
    pass_time(service, model, service.settings.jobs.sweep_seconds)
    assert policies.sweep(service) == 1
    assert named(updates_of(service, model)[0]) == {row.id}


def test_takes_whatever_waits_when_the_time_of_a_schedule_comes(service, caller):
    model = a_policy_model(service, caller, when="schedule", max_wait_seconds=3600)
    pass_time(service, model, 7000)
    row = offer(service, caller, model, rows(cat=1))
    assert policies.sweep(service) == 0
    pass_time(service, model, 300)
    assert policies.sweep(service) == 1
    assert named(updates_of(service, model)[0]) == {row.id}
    pass_time(service, model, 3600)
    assert policies.sweep(service) == 0


@pytest.mark.parametrize("policy", [None, {"when": "manual"}])
def test_never_starts_what_is_started_by_hand(service, caller, policy):
    model = a_model(service, caller)
    change(service, caller, model, update_policy=policy)
    offer(service, caller, model, BASE)
    with service.db.begin() as session:
        session.execute(update(Offer).values(offered_at=clock(session) - timedelta(days=400)))
    assert policies.sweep(service) == 0
    assert events(service, caller, model) == ["waited"]


def test_takes_what_was_sent_before_there_was_a_policy(service, caller):
    model = a_model(service, caller)
    offer(service, caller, model, BASE)
    with_policy(service, caller, model)
    assert policies.sweep(service) == 1
    assert events(service, caller, model) == ["waited", "started"]
