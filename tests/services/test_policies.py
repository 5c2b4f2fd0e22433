"""Models that update themselves: when datasets become an update, and what the history says of it."""

import threading
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app import ids
from app.db import clock
from app.errors import DimensionMismatch, TooFewSamples, ValidationFailed
from app.schemas.models import ModelChange
from app.service import Caller
from app.services import access, datasets, history, job_wishes, jobs, models, offers, policies, snapshots
from app.services import aliases as alias_service
from app.services.aliases import of_model
from app.services.paging import Page, Place
from app.services.scheduler import Scheduler
from app.tables import ApiKey, Dataset, Decision, Job, JobDataset, Model, Offer, Version, VersionDataset
from tests.services.learning import (
    a_dataset,
    a_model,
    learn,
    restrict,
    rows,
    run_next,
    submit,
)
from tests.services.sent import send

NCM = {"name": "ncm", "params": {}}
BASE = rows(ant=4, bee=4)


@pytest.fixture
def caller(service, tenant):
    """An API key that may do everything and that the database knows."""
    with service.db.begin() as session:
        row = access.issue(session, tenant.id, "key", ["admin"], None, actor="test").row
    return Caller(tenant.id, row.id, frozenset(row.scopes), "req_test")


def with_policy(service, caller, model, **fields):
    body = {"when": "on_dataset", "method": NCM, **fields}
    return change(service, caller, model, update_policy=body)


def change(service, caller, model, **fields):
    return models.change(service, caller, model.id, ModelChange.model_validate(fields), lambda revision: None)


def a_policy_model(service, caller, *, taught=True, model=None, **fields):
    """A model with one version of ants and bees that learns by itself from now on."""
    found = a_model(service, caller, **(model or {}))
    if taught:
        learn(service, caller, found, [a_dataset(service, caller.tenant_id, BASE)], alias="production")
    with_policy(service, caller, found, **fields)
    return found


def offer(service, caller, model, labels, **given):
    """A dataset that is stored and offered as an upload that names the model does."""
    row = a_dataset(service, caller.tenant_id, labels, **given)
    offer_again(service, caller, model, row)
    return row


def offer_again(service, caller, model, row):
    with service.db.begin() as session:
        policies.offer(service, session, caller, model.id, session.get_one(Dataset, row.id))


def lines(service, caller, model):
    page: Page[Place] = Page(500)
    return [
        line
        for line in history.browse(service, caller.tenant_id, model.id, page).rows
        if line.event != "alias-moved"
    ]


def events(service, caller, model):
    return [line.event for line in lines(service, caller, model)]


def updates_of(service, model):
    with service.db.read() as session:
        return session.scalars(
            select(Job).filter_by(model_id=model.id, state="queued").order_by(Job.created_at)
        ).all()


def named(found):
    return {UUID(hex=id) for id in found.request["datasets"]}


def aliases(service, model):
    with service.db.read() as session:
        return {alias.name: alias.version for alias in of_model(session, model.id) if not alias.computed}


def pass_time(service, model, seconds):
    """The same as waiting: what was offered, and the policy, are that much older."""
    ago = timedelta(seconds=seconds)
    with service.db.begin() as session:
        for row in session.scalars(select(Offer).filter_by(model_id=model.id)):
            row.offered_at -= ago
        session.get_one(Model, model.id).policy_set_at -= ago


def train_edges(service, version):
    with service.db.read() as session:
        found = session.scalars(select(VersionDataset).filter_by(version_id=version.id, role="train"))
        return {edge.dataset_id for edge in found}


def the_version(service, done):
    assert done.state == "succeeded", done.error
    with service.db.read() as session:
        return session.get_one(Version, ids.decode("ver", done.result["version_id"]))


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

    monkeypatch.setattr("app.services.policy_jobs.start", crash)
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


def at_once(calls):
    """Runs calls on threads that begin together; raises what one of them raised."""
    gate, failed = threading.Barrier(len(calls)), []

    def run(call):
        gate.wait()
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_counts_no_row_that_is_restricted_and_learns_none(service, caller):
    model = a_policy_model(service, caller, min_rows=4)
    row = a_dataset(service, caller.tenant_id, rows(cat=5))
    restrict(service, row, 0, 3)
    offer_again(service, caller, model, row)
    assert "3 of 4 rows" in lines(service, caller, model)[0].reason

    offer(service, caller, model, rows(dog=1), seed=2)
    version = the_version(service, run_next(service))
    counts = {name: z.count for name, z in snapshots.load(service, version.id).snapshot.centroids.items()}
    assert counts == {"ant": 4, "bee": 4, "cat": 3, "dog": 1}


def test_starts_nothing_where_every_row_is_restricted(service, caller):
    model = a_policy_model(service, caller, max_wait_seconds=1)
    row = a_dataset(service, caller.tenant_id, rows(cat=2))
    restrict(service, row, 0, 1)
    offer_again(service, caller, model, row)
    pass_time(service, model, 60)
    assert policies.sweep(service) == 0
    assert events(service, caller, model) == ["waited"]


def test_goes_on_without_a_dataset_that_was_deleted_while_it_waited(service, caller):
    model = a_policy_model(service, caller, min_rows=100, max_wait_seconds=60)
    gone = offer(service, caller, model, rows(dog=3), seed=2)
    kept = offer(service, caller, model, rows(cat=3))
    datasets.remove(service, caller, gone.id)
    pass_time(service, model, 61)
    assert policies.sweep(service) == 1
    assert named(updates_of(service, model)[0]) == {kept.id}
    refused = [line for line in lines(service, caller, model) if line.event == "refused"]
    assert [(line.datasets, line.code) for line in refused] == [([gone.id], "purged")]


def test_starts_again_without_a_dataset_that_was_deleted_before_its_turn(service, caller):
    model = a_policy_model(service, caller, min_rows=6)
    gone = offer(service, caller, model, rows(dog=3), seed=2)
    kept = offer(service, caller, model, rows(cat=3))
    datasets.remove(service, caller, gone.id)
    failed = run_next(service)
    assert (failed.state, failed.error["cause"]) == ("failed", "invalid-input")

    with_policy(service, caller, model, min_rows=1)
    assert policies.sweep(service) == 1
    (queued,) = [one for one in updates_of(service, model) if one.kind == "update"]
    assert named(queued) == {kept.id}
    assert events(service, caller, model) == ["waited", "started", "failed", "refused", "started"]


def test_gives_up_on_a_dataset_that_jobs_keep_failing_on(service, caller):
    model = a_policy_model(service, caller)
    row = offer(service, caller, model, rows(cat=3))
    for _ in range(policies.MOST_TRIES):
        with service.db.begin() as session:
            session.execute(
                update(Job).where(Job.state == "queued").values(state="failed", error={"cause": "internal"})
            )
        policies.sweep(service)
    assert updates_of(service, model) == []
    assert state_of(service, model, row) == offers.REFUSED
    assert events(service, caller, model).count("failed") == policies.MOST_TRIES


def test_does_not_take_up_again_what_a_caller_cancelled(service, caller):
    model = a_policy_model(service, caller)
    row = offer(service, caller, model, rows(cat=3))
    job_wishes.cancel(service, caller, updates_of(service, model)[0].id)
    assert policies.sweep(service) == 0
    assert state_of(service, model, row) == offers.REFUSED
    offer_again(service, caller, model, row)
    assert len(updates_of(service, model)) == 1


def state_of(service, model, row):
    with service.db.read() as session:
        return session.get_one(Offer, (model.id, row.id)).state


def test_refuses_a_dataset_with_a_known_class_and_learns_the_others(service, caller):
    model = a_policy_model(service, caller, min_rows=6)
    known = offer(service, caller, model, rows(ant=3), seed=2)
    fresh = offer(service, caller, model, rows(cat=3))
    (queued,) = updates_of(service, model)
    assert named(queued) == {fresh.id}
    (line,) = [line for line in lines(service, caller, model) if line.event == "refused"]
    assert (line.datasets, line.code) == ([known.id], "class-name-conflict")
    assert "ant" not in line.reason


def test_adds_to_known_classes_where_the_policy_says_so(service, caller):
    model = a_policy_model(service, caller, on_conflict="extend")
    offer(service, caller, model, rows(ant=3), seed=2)
    version = the_version(service, run_next(service))
    assert snapshots.load(service, version.id).snapshot.centroids["ant"].count == 7


def test_holds_all_back_while_a_single_class_makes_no_classifier(service, caller):
    model = a_policy_model(service, caller, taught=False)
    first = offer(service, caller, model, rows(ant=3))
    policies.sweep(service)
    policies.sweep(service)
    assert events(service, caller, model) == ["held-back"]
    second = offer(service, caller, model, rows(bee=3), seed=1)
    assert named(updates_of(service, model)[0]) == {first.id, second.id}


def test_counts_what_a_posted_update_learned_as_learned(service, caller):
    model = a_policy_model(service, caller, min_rows=100)
    row = offer(service, caller, model, rows(cat=3))
    learn(service, caller, model, [row])
    assert state_of(service, model, row) == offers.LEARNED


def test_refuses_at_the_door_what_the_model_cannot_read(service, caller):
    model = a_policy_model(service, caller)
    wide = a_dataset(service, caller.tenant_id, rows(cat=3), width=7)
    only_eval = a_dataset(service, caller.tenant_id, rows(cat=3), split=[1, 1, 1])
    for row, error in ((wide, DimensionMismatch), (only_eval, TooFewSamples)):
        with pytest.raises(error) as caught:
            offer_again(service, caller, model, row)
        assert caught.value.errors[0].pointer == "model"
    assert events(service, caller, model) == []


def test_never_learns_what_measures_the_model(service, caller):
    model = a_policy_model(service, caller)
    judge = a_dataset(service, caller.tenant_id, rows(ant=3, cat=2), seed=7)
    change(service, caller, model, evaluation=ids.encode("dst", judge.id))
    with pytest.raises(ValidationFailed):
        offer_again(service, caller, model, judge)


SPLIT = [0, 0, 0, 1]


def gated(service, caller, **gates):
    """A model whose alias stands at a version and whose policy moves it if these gates hold."""
    model = a_model(service, caller, gates=gates)
    data = a_dataset(service, caller.tenant_id, rows(ant=4, bee=4), split=[0] * 6 + [1] * 2)
    learn(service, caller, model, [data], alias="production")
    assert aliases(service, model) == {"production": 1}
    with_policy(service, caller, model, promote="if_gates_pass", alias="production")
    return model


def test_moves_the_alias_when_every_gate_holds(service, caller):
    model = gated(service, caller, min_new=0.9, min_old=0.9)
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    run_next(service)
    assert aliases(service, model) == {"production": 2}
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version, line.alias) == ("promoted", 2, "production")
    assert [gate["holds"] for gate in line.gates] == [True, True]


def test_leaves_production_where_a_gate_does_not_hold(service, caller):
    model = gated(service, caller, min_new=0.9)
    offer(service, caller, model, rows(cat=4), split=SPLIT, x=[[0, 0, 1, 0]] * 3 + [[1, 0, 0, 0]])
    done = run_next(service)
    assert done.state == "succeeded"
    assert aliases(service, model) == {"production": 1}
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version, line.reason) == ("held-back", 2, "a gate does not hold")
    assert line.gates == [{"gate": "min_new", "limit": 0.9, "value": 0.0, "holds": False}]


def test_measures_forgetting_against_the_version_that_the_alias_names(service, caller):
    model = gated(service, caller, max_forgetting=0.1)
    with service.db.begin() as session:  # the aliased version got half of its old rows right, and still does
        version = session.scalars(select(Version).filter_by(model_id=model.id)).one()
        version.metrics = {**version.metrics, "per_class": {"ant": 0.0, "bee": 0.0}}
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    run_next(service)
    line = lines(service, caller, model)[-1]
    assert line.event == "promoted"
    assert line.gates[0]["value"] == pytest.approx(-1.0)


@pytest.mark.parametrize("field", ["revoked_at", "expires_at"])
def test_holds_back_when_the_key_that_set_it_ends(service, caller, field):
    model = gated(service, caller, min_new=0.0)
    first = offer(service, caller, model, rows(cat=4), split=SPLIT)
    with service.db.begin() as session:
        setattr(session.get_one(ApiKey, caller.key_id), field, clock(session))
    run_next(service)
    second = offer(service, caller, model, rows(dog=4), split=SPLIT, seed=3)

    assert updates_of(service, model) == []
    assert aliases(service, model) == {"production": 1}
    assert [line.event for line in lines(service, caller, model)] == ["started", "held-back", "held-back"]
    assert "API key" in lines(service, caller, model)[1].reason
    assert state_of(service, model, first) == offers.LEARNED
    assert state_of(service, model, second) == offers.WAITING


def test_promotes_nothing_once_the_policy_was_taken_away(service, caller):
    model = gated(service, caller, min_new=0.0)
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    change(service, caller, model, update_policy=None)
    run_next(service)
    assert aliases(service, model) == {"production": 1}
    assert lines(service, caller, model)[-1].reason == "the update policy was changed meanwhile"


def test_does_not_make_an_alias_that_was_removed(service, caller):
    model = gated(service, caller, min_new=0.0)
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    alias_service.remove(service, caller, model.id, "production", lambda revision: None)
    run_next(service)
    assert aliases(service, model) == {}
    assert lines(service, caller, model)[-1].event == "held-back"
    offer(service, caller, model, rows(dog=4), split=SPLIT, seed=3)
    assert updates_of(service, model) == []
    assert lines(service, caller, model)[-1].code == "not-found"


def test_two_models_with_the_same_name_of_an_alias_move_each_their_own(service, caller):
    one, other = gated(service, caller, min_new=0.0), gated(service, caller, min_new=0.0)
    offer(service, caller, one, rows(cat=4), split=SPLIT)
    run_next(service)
    assert (aliases(service, one), aliases(service, other)) == ({"production": 2}, {"production": 1})


def test_leaves_nothing_of_a_deleted_model_but_ids(service, caller):
    model = a_policy_model(service, caller, min_rows=100)
    offer(service, caller, model, rows(cat=3))
    models.remove(service, caller, model.id, lambda revision: None)
    assert policies.sweep(service) == 0
    assert run_next(service).state == "succeeded"
    with service.db.read() as session:
        assert session.scalars(select(Offer)).all() == []
        left = session.scalars(select(Decision).filter_by(model_id=model.id)).all()
    assert [(line.event, line.reason) for line in left] == [("waited", "")]


def test_one_model_that_cannot_be_looked_at_holds_no_other_up(service, caller, monkeypatch):
    broken, sound = (a_policy_model(service, caller, min_rows=100, max_wait_seconds=60) for _ in range(2))
    for number, model in enumerate((broken, sound)):
        offer(service, caller, model, rows(cat=3), seed=number)
        pass_time(service, model, 61)
    look = policies.decide

    def decide(service, session, model, **given):
        if model.id == broken.id:
            raise RuntimeError("gone")
        return look(service, session, model, **given)

    monkeypatch.setattr(policies, "decide", decide)
    assert policies.sweep(service) == 1
    assert len(updates_of(service, sound)) == 1
