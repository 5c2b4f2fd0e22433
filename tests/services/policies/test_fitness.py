"""Datasets that a policy cannot learn, or not now: restricted, deleted, of another form."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app import ids
from app.errors import DimensionMismatch, TooFewSamples, ValidationFailed
from app.services.datasets import datasets
from app.services.jobs import asked as job_wishes
from app.services.models import snapshots, updates
from app.services.policies import offers, policies
from app.tables import Job, Offer
from tests.services.learning import (
    a_dataset,
    learn,
    restrict,
    rows,
    run_next,
)
from tests.services.policies.following import (
    a_policy_model,
    change,
    events,
    let_fail,
    lines,
    named,
    offer,
    offer_again,
    pass_time,
    state_of,
    the_version,
    updates_of,
    with_policy,
)


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


def test_takes_restricted_rows_of_a_dataset_with_eval_rows_for_those(service, caller):
    model = a_policy_model(service, caller, min_rows=3)
    row = a_dataset(service, caller.tenant_id, rows(cat=6), split=[0, 0, 0, 1, 1, 1])
    restrict(service, row, 3, 4, 5)
    offer_again(service, caller, model, row)
    version = the_version(service, run_next(service))
    assert snapshots.load(service, version.id).snapshot.centroids["cat"].count == 3


def test_refuses_a_dataset_whose_train_rows_prove_restricted_and_learns_the_others(service, caller):
    model = a_policy_model(service, caller, min_rows=6)
    empty = a_dataset(service, caller.tenant_id, rows(dog=6), split=[0, 0, 0, 1, 1, 1])
    restrict(service, empty, 0, 1, 2)
    offer_again(service, caller, model, empty)
    kept = offer(service, caller, model, rows(cat=3))
    failed = run_next(service)
    assert (failed.state, failed.error["errors"][0]["pointer"]) == ("failed", "/datasets/0")
    with_policy(service, caller, model, min_rows=1)
    assert policies.sweep(service) == 1
    assert state_of(service, model, empty) == offers.REFUSED
    assert named(updates_of(service, model)[0]) == {kept.id}
    with service.db.read() as session:
        assert session.get_one(Offer, (model.id, kept.id)).tries == 1  # of the job that waits now
    assert events(service, caller, model) == ["waited", "started", "failed", "refused", "started"]
    line = lines(service, caller, model)[3]
    assert (line.datasets, line.code) == ([empty.id], "invalid-input")


def test_refuses_the_first_that_would_be_too_many_classes_and_learns_the_others(service, caller):
    model = a_policy_model(service, caller, min_rows=11)
    small = service.settings.model_copy(
        update={"limits": service.settings.limits.model_copy(update={"classes": 4})}
    )
    limited = replace(service, settings=small)
    first = offer(limited, caller, model, rows(cat=3))
    many = offer(limited, caller, model, rows(dog=2, eel=2, fox=2), seed=1)
    last = offer(limited, caller, model, rows(gnu=3), seed=2)
    assert state_of(service, model, many) == offers.REFUSED
    assert named(updates_of(service, model)[0]) == {first.id, last.id}
    line = next(line for line in lines(service, caller, model) if line.event == "refused")
    assert (line.datasets, line.reason) == ([many.id], "the model would have 7 classes; at most 4")


def test_looks_at_what_waits_once_however_much_of_it_is_refused(service, caller, monkeypatch):
    model = a_policy_model(service, caller, min_rows=12)
    real, seen = updates.survey, []

    def survey(*given):
        seen.append(given)
        return real(*given)

    for seed in range(3):
        offer(service, caller, model, rows(ant=3), seed=seed)
    monkeypatch.setattr(updates, "survey", survey)
    offer(service, caller, model, rows(ant=3), seed=3)
    assert events(service, caller, model).count("refused") == 4
    assert len(seen) == 1


def test_leaves_to_a_retry_what_its_job_was_to_learn(service, caller):
    model = a_policy_model(service, caller)
    row = offer(service, caller, model, rows(cat=3))
    (old,) = updates_of(service, model)
    with service.db.begin() as session:
        session.get_one(Job, old.id).state = "failed"
    again = job_wishes.retry(service, caller, old.id)
    assert policies.sweep(service) == 0
    assert [one.id for one in updates_of(service, model)] == [again.id]
    the_version(service, run_next(service))
    assert state_of(service, model, row) == offers.LEARNED
    assert "failed" not in events(service, caller, model)


def test_takes_up_by_a_retry_what_it_had_given_up(service, caller):
    model = a_policy_model(service, caller)
    row = offer(service, caller, model, rows(cat=3))
    old = updates_of(service, model)[0].id
    job_wishes.cancel(service, caller, old)
    policies.sweep(service)
    job_wishes.retry(service, caller, old)
    assert state_of(service, model, row) == offers.STARTED


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
        let_fail(service)
        policies.sweep(service)
        pass_time(service, model, 3600)
        policies.sweep(service)
    assert updates_of(service, model) == []
    assert state_of(service, model, row) == offers.REFUSED
    assert events(service, caller, model).count("failed") == policies.MOST_TRIES


def test_waits_longer_after_every_job_that_failed(service, caller):
    model = a_policy_model(service, caller)
    row = offer(service, caller, model, rows(cat=3))
    for pause in (60, 240):
        let_fail(service)
        assert policies.sweep(service) == 0
        assert f"is tried again in {pause} s" in lines(service, caller, model)[-1].reason
        pass_time(service, model, pause - 5)
        assert policies.sweep(service) == 0
        pass_time(service, model, 5)
        assert policies.sweep(service) == 1
    assert named(updates_of(service, model)[0]) == {row.id}


def test_learns_what_comes_without_what_rests_after_a_failure(service, caller):
    model = a_policy_model(service, caller)
    failed = offer(service, caller, model, rows(cat=3))
    let_fail(service)
    policies.sweep(service)
    fresh = offer(service, caller, model, rows(dog=3), seed=1)
    assert named(updates_of(service, model)[0]) == {fresh.id}
    pass_time(service, model, 60)
    policies.sweep(service)
    assert named(updates_of(service, model)[0]) == {fresh.id, failed.id}


def test_rests_no_longer_than_an_hour():
    pauses = [offers.pause(tries) for tries in range(100)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[1], pauses[-1]) == (timedelta(), timedelta(minutes=1), timedelta(hours=1))


def test_does_not_take_up_again_what_a_caller_cancelled(service, caller):
    model = a_policy_model(service, caller)
    row = offer(service, caller, model, rows(cat=3))
    job_wishes.cancel(service, caller, updates_of(service, model)[0].id)
    assert policies.sweep(service) == 0
    assert state_of(service, model, row) == offers.REFUSED
    offer_again(service, caller, model, row)
    assert len(updates_of(service, model)) == 1


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
