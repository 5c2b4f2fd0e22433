"""Updates that a policy starts: joined, raced, left undecided by a crash."""

import pytest
from sqlalchemy import select

from app.services import jobs
from app.services.policies import policies, policy_jobs
from app.services.scheduler import Scheduler
from app.tables import Dataset, Job, JobDataset, Offer
from tests.services.learning import (
    a_dataset,
    rows,
    run_next,
    submit,
)
from tests.services.policies.following import (
    a_policy_model,
    at_once,
    events,
    lines,
    named,
    offer,
    offer_again,
    pass_time,
    the_version,
    train_edges,
    updates_of,
    with_policy,
)
from tests.services.sent import send


def test_joins_an_update_that_waits_while_the_lane_is_busy(service, caller):
    model = a_policy_model(service, caller)
    submit(service, caller, model, [a_dataset(service, caller.tenant_id, rows(dog=3), seed=3)])
    holder = jobs.claim(service, ["cpu"], "busy")
    assert holder is not None
    first = offer(service, caller, model, rows(cat=3))
    second = offer(service, caller, model, rows(fox=3), seed=2)
    third = offer(service, caller, model, rows(cat=2), seed=4)

    (queued,) = updates_of(service, model)
    assert named(queued) == {first.id, second.id, third.id}
    with service.db.read() as session:
        read = session.scalars(select(JobDataset.dataset_id).filter_by(job_id=queued.id)).all()
    assert set(read) == {first.id, second.id, third.id}
    assert events(service, caller, model) == ["started", "joined", "joined"]

    jobs.requeue(service, holder, "the test lets it go")
    assert run_next(service).state == "succeeded"
    version = the_version(service, run_next(service))
    assert version.job_id == queued.id
    assert train_edges(service, version) >= {first.id, second.id, third.id}


def test_starts_several_where_one_would_have_too_many_datasets(service, caller, monkeypatch):
    monkeypatch.setattr(policy_jobs, "MOST", 2)
    model = a_policy_model(service, caller, min_rows=15)
    sent = [
        offer(service, caller, model, rows(**{name: 3}), seed=seed)
        for seed, name in enumerate(("cat", "dog", "eel", "fox", "gnu"))
    ]
    found = updates_of(service, model)
    assert [len(named(one)) for one in found] == [2, 2, 1]
    assert set().union(*map(named, found)) == {row.id for row in sent}
    assert events(service, caller, model) == ["waited"] * 4 + ["started"] * 3
    assert all("5 datasets wait" in line.reason for line in lines(service, caller, model)[4:])

    last = [the_version(service, run_next(service)) for _ in found][-1]
    assert train_edges(service, last) >= {row.id for row in sent}


def test_leaves_one_that_cannot_be_learned_out_of_several_updates(service, caller, monkeypatch):
    monkeypatch.setattr(policy_jobs, "MOST", 1)
    model = a_policy_model(service, caller, min_rows=9)
    sent = [offer(service, caller, model, rows(**{name: 3})) for name in ("cat", "ant", "dog")]
    assert [named(one) for one in updates_of(service, model)] == [{sent[0].id}, {sent[2].id}]
    assert events(service, caller, model).count("refused") == 1


def test_never_joins_an_update_that_a_caller_posted(service, caller):
    model = a_policy_model(service, caller)
    posted = submit(service, caller, model, [a_dataset(service, caller.tenant_id, rows(dog=3), seed=3)])
    offer(service, caller, model, rows(cat=3))

    found = updates_of(service, model)
    assert [one.id == posted.id for one in found] == [True, False]
    assert len(named(found[0])) == len(named(found[1])) == 1


def test_never_joins_an_update_that_a_worker_has_begun(service, caller):
    model = a_policy_model(service, caller)
    first = offer(service, caller, model, rows(cat=3))
    claimed = jobs.claim(service, ["cpu"], "worker")
    assert claimed is not None
    offer(service, caller, model, rows(dog=3), seed=2)
    jobs.requeue(service, claimed, "the worker left")
    offer(service, caller, model, rows(fox=3), seed=3)

    begun, second = updates_of(service, model)
    assert named(begun) == {first.id}
    assert len(named(second)) == 2


def test_never_joins_an_update_under_another_policy(service, caller):
    model = a_policy_model(service, caller)
    offer(service, caller, model, rows(cat=3))
    with_policy(service, caller, model, on_conflict="extend")
    offer(service, caller, model, rows(dog=3), seed=2)
    assert [one.request["on_conflict"] for one in updates_of(service, model)] == ["reject", "extend"]


def test_finds_what_a_crash_left_undecided(service, caller, monkeypatch):
    model = a_policy_model(service, caller)
    with monkeypatch.context() as crash:
        crash.setattr(policies, "decide", lambda *_, **__: None)
        row = offer(service, caller, model, rows(cat=3))
    assert updates_of(service, model) == []

    Scheduler(service).sweep()
    assert named(updates_of(service, model)[0]) == {row.id}


def test_stores_neither_dataset_nor_decision_when_the_transaction_fails(service, caller, monkeypatch):
    model = a_policy_model(service, caller)

    def crash(*_, **__):
        raise RuntimeError("gone")

    monkeypatch.setattr("app.services.policies.policy_jobs.start", crash)
    with pytest.raises(RuntimeError):
        send(service, caller, model_id=model.id, x=[[0, 0, 1, 0]] * 3, label=["cat"] * 3)
    with service.db.read() as session:
        assert session.scalars(select(Offer)).all() == []
        assert len(session.scalars(select(Dataset)).all()) == 1
    assert events(service, caller, model) == []


def test_of_two_datasets_at_once_one_update_comes(service, caller):
    model = a_policy_model(service, caller, min_rows=6)
    sent = [
        a_dataset(service, caller.tenant_id, rows(**{name: 3}), seed=i)
        for i, name in enumerate(("cat", "dog"))
    ]
    at_once([lambda row=row: offer_again(service, caller, model, row) for row in sent])
    (queued,) = updates_of(service, model)
    assert named(queued) == {row.id for row in sent}


def test_of_sweeps_at_once_one_starts_the_update(service, caller):
    model = a_policy_model(service, caller, min_rows=100, max_wait_seconds=60)
    offer(service, caller, model, rows(cat=3))
    pass_time(service, model, 61)
    started = []
    at_once([lambda: started.append(policies.sweep(service)) for _ in range(3)])
    assert sum(started) == 1
    assert len(updates_of(service, model)) == 1


def test_a_dataset_that_comes_while_a_worker_claims_is_in_one_update(service, caller):
    model = a_policy_model(service, caller)
    sent = [offer(service, caller, model, rows(cat=3))]
    claimed = []
    for number, name in enumerate(("dog", "fox", "owl")):
        row = a_dataset(service, caller.tenant_id, rows(**{name: 3}), seed=number)
        sent.append(row)
        at_once(
            [
                lambda: claimed.append(jobs.claim(service, ["cpu"], "worker")),
                lambda row=row: offer_again(service, caller, model, row),
            ]
        )
    with service.db.read() as session:
        jobs_now = session.scalars(
            select(Job).filter_by(model_id=model.id).where(Job.state != "succeeded")
        ).all()
    taken = [id for one in jobs_now for id in one.request["datasets"]]
    assert sorted(taken) == sorted(row.id.hex for row in sent)
    by_id = {one.id: one.request for one in jobs_now}
    seen = [one for one in claimed if one is not None]
    assert seen
    assert all(by_id[one.id] == one.request for one in seen)
