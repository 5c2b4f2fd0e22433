"""A request from receipt to its end: what it restricts, what its approval writes, who follows whom."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select

from app import ids
from app.config import Forget
from app.db import clock
from app.errors import (
    AppError,
    ApprovalRequired,
    DeadlinePassed,
    IdempotencyMismatch,
    JobNotCancellable,
    JobNotRetryable,
    NotFound,
    RequestStateConflict,
    ValidationFailed,
)
from app.schemas.forget import Extension, ForgetCreate, Hold, Retry
from app.services import jobs
from app.services.callers import audit
from app.services.callers.idempotency import Replay
from app.services.erasure import ledger
from app.services.forget import decisions, previews, reads, states, sweeps
from app.services.jobs import Cause, Signal
from app.services.jobs import asked as job_wishes
from app.services.paging import Page
from app.tables import ErasedRow, ForgetTarget, Job, LedgerEntry, ModelClass, RestrictedRow
from tests.conftest import a_tenant
from tests.services.asking import a_dataset_of, ask, key, killed_after_the_object, now, post, row
from tests.services.learning import a_model, claim, job, learn, rows, submit

PERSONS = [["ada"], ["ben"], ["ada", "ben"], ["cleo"], ["dan"], ["eve"]]


@pytest.fixture
def data(service, tenant):
    return a_dataset_of(service, tenant.id, rows(ant=3, bee=3), PERSONS)


@pytest.fixture
def model(service, caller, data):
    made = a_model(service, caller)
    learn(service, caller, made, [data])
    return made


@pytest.fixture
def clerk(tenant):
    """Who may ask and not approve."""
    return key(tenant.id, "forget:create")


@pytest.fixture
def chief(tenant):
    return key(tenant.id, "forget:approve")


def count(service, table, **of):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table).filter_by(**of))


def unusable(service, data):
    with service.db.read() as session:
        return ledger.unusable(session, [data.id])[data.id]


def forget_jobs(service, state="queued"):
    with service.db.read() as session:
        query = select(Job).filter_by(kind="forget", state=state).order_by(Job.created_at)
        return list(session.scalars(query))


def models_of(request):
    return [item for item in request.items if item.kind == "model"]


def take_up(service, model):
    """A forget job at its claim, and the requests that it works on."""
    claimed = claim(service, "cpu", "gpu")
    assert claimed.kind == "forget"
    with service.db.begin() as session:
        return claimed, [one.id for one in states.take(session, model.id, claimed.id)]


def succeed(service, claimed, model, taken):
    """What the job's publication says of its requests."""
    with service.db.begin() as session:
        jobs.finish(session, claimed, {})
        return states.model_done(session, model.id, taken, {"versions": 1})


def test_restricts_from_receipt_and_frees_what_is_rejected(service, data, clerk, chief):
    asked = ask(service, clerk, ["ada"])
    assert (asked.state, asked.evidence["rows"]) == ("awaiting-approval", 2)
    assert unusable(service, data) == {0, 2}
    assert count(service, LedgerEntry) == 0

    rejected = decisions.reject(service, chief, asked.id, "no such duty", None)

    assert (rejected.state, rejected.reason, rejected.done) == ("rejected", "no such duty", True)
    assert unusable(service, data) == set()
    with pytest.raises(RequestStateConflict):
        decisions.approve_request(service, chief, asked.id, None)


def test_goes_from_approval_through_its_stages_to_completed(service, caller, data, model, clerk, chief):
    asked = ask(service, clerk, ["ada"])
    approved = decisions.approve_request(service, chief, asked.id, None)
    assert approved.state == "locating"
    assert unusable(service, data) == {0, 2}
    assert count(service, RestrictedRow) == 0
    assert count(service, ErasedRow, sequence=approved.ledger_sequence) == 2
    stored = service.ledger.get(asked.id, "approve")
    assert stored.body["rows"] == {data.id.hex: [0, 2]}
    assert stored.body["actor"] == chief.actor

    claimed, taken = take_up(service, model)
    assert taken == [asked.id]
    assert now(service, chief, asked).state == "unlearning"
    for stage in ("verifying", "publishing"):
        with service.db.begin() as session:
            states.enter(session, taken, model.id, stage)
        assert now(service, chief, asked).state == stage
    purge = succeed(service, claimed, model, taken)
    assert (purge.kind, purge.request) == ("purge", {"erasure": caller.tenant_id.hex})
    with service.db.begin() as session:
        [request] = states.lock(session, taken)
        assert request.state == "purging"
        states.complete(session, request)

    done = now(service, chief, asked)
    assert (done.state, done.done) == ("completed", True)
    assert [stage.stage for stage in done.stages] == list(states.STAGES)
    assert all(stage.finished_at >= stage.started_at for stage in done.stages)
    assert [(item.state, item.detail) for item in models_of(done)] == [("done", {"versions": 1})]


def test_an_unknown_person_gets_the_same_answer_and_a_purge(service, caller, data, model, clerk):
    for who, names in ((caller, ("ada", "nobody")), (clerk, ("ben", "nobody else"))):
        known, unknown = (post(service, who, [name], shared_rows="report") for name in names)
        own = {"id", "created_at", "submitted_at", "due_at", "links"}
        assert known.model_dump(exclude={*own, "stages"}) == unknown.model_dump(exclude={*own, "stages"})
        for answer in (known, unknown):
            assert (answer.state, answer.items, answer.evidence, answer.exceptions) == (
                "received",
                [],
                {},
                [],
            )
            assert [(stage.stage, stage.items) for stage in answer.stages] == [("received", [])]

    found = now(service, caller, unknown)
    assert (found.state, found.evidence["rows"]) == ("awaiting-approval", 0)
    done = ask(service, caller, ["not even those"])
    assert (done.state, done.evidence["rows"], done.items) == ("purging", 0, [])
    assert count(service, Job, kind="purge") == 1


def test_requests_that_wait_for_one_model_share_a_job(service, caller, data, model):
    asked = [ask(service, caller, [name]) for name in ("ada", "cleo", "dan")]
    assert len(forget_jobs(service)) == 1
    claimed, taken = take_up(service, model)
    assert taken == [one.id for one in asked]

    late = ask(service, caller, ["eve"])  # what runs has begun without it
    assert len(forget_jobs(service)) == 1
    assert succeed(service, claimed, model, taken).kind == "purge"
    assert {now(service, caller, one).state for one in asked} == {"purging"}
    assert now(service, caller, late).state == "locating"


def test_takes_names_as_nfc_and_trimmed_and_never_another_case(service, caller, tenant):
    a_dataset_of(service, tenant.id, rows(ant=2), [["Zoé"], ["zoé"]])
    assert ask(service, caller, [" Zoe\u0301 "]).evidence["rows"] == 1


def test_one_person_may_have_several_identifiers(service, caller, data):
    asked = ask(service, caller, [{"any_of": ["ada", "ben"]}, "cleo"])
    assert (asked.persons, asked.evidence["rows"]) == (2, 4)
    assert ask(service, caller, {"any_of": ["dan", "eve"]}).persons == 1


def test_leaves_and_reports_rows_that_name_others_where_asked(service, caller, data):
    asked = ask(service, caller, ["ada"], shared_rows="report")
    assert unusable(service, data) == {0}
    assert asked.exceptions == [{"code": "shared-rows", "dataset": ids.encode("dst", data.id), "rows": 1}]
    both = ask(service, caller, ["ada", "ben"], shared_rows="report")
    assert both.exceptions == []
    assert unusable(service, data) == {0, 1, 2}


def test_forgets_samples_by_id_and_by_position(service, caller, tenant, data):
    named = a_dataset_of(service, tenant.id, rows(ant=2), [[], []], ["first", "second"])
    ask(service, caller, ["second"], "samples")
    ask(service, caller, [{"dataset": ids.encode("dst", data.id), "positions": [5, 1, 5]}], "samples")
    assert (unusable(service, named), unusable(service, data)) == ({1}, {1, 5})


def test_forgets_a_class_through_the_models_that_know_it(service, caller, data, model):
    with service.db.read() as session:
        ant = session.scalar(select(ModelClass).filter_by(model_id=model.id, name="ant"))
    asked = ask(service, caller, [ids.encode("cls", ant.id)], "class")
    assert [item.resource for item in models_of(asked)] == [ids.encode("mdl", model.id)]
    assert asked.state == "locating"


def test_stays_within_the_models_that_it_names(service, caller, data, model):
    other = a_model(service, caller)
    learn(service, caller, other, [data])
    asked = ask(service, caller, ["ada"], models=[ids.encode("mdl", other.id)])
    assert [item.resource for item in models_of(asked)] == [ids.encode("mdl", other.id)]
    assert len(models_of(ask(service, caller, ["ada"]))) == 2


def test_a_duplicate_joins_the_open_request_and_follows_it(service, data, model, clerk, chief):
    first = ask(service, clerk, ["ada", "ben"])
    second = ask(service, clerk, ["ben", "ada"])
    assert (second.duplicate_of, second.state) == (first.id, "awaiting-approval")
    assert ask(service, clerk, ["ada"]).duplicate_of is None
    with pytest.raises(RequestStateConflict):
        decisions.approve_request(service, chief, second.id, None)

    decisions.approve_request(service, chief, first.id, None)
    followed = now(service, chief, second)
    assert (followed.state, followed.ledger_sequence) == ("locating", row(service, first.id).sequence)
    with pytest.raises(RequestStateConflict, match="joined"):
        decisions.cancel(service, chief, first.id, None, None)

    claimed, taken = take_up(service, model)
    assert now(service, chief, second).state == "unlearning"
    with service.db.begin() as session:
        jobs.finish(session, claimed, {})
        states.model_done(session, model.id, taken, {})
    assert now(service, chief, second).state == "purging"


def test_an_automatic_duplicate_approves_what_it_joins(service, caller, data, clerk):
    first = ask(service, clerk, ["ada"])
    second = ask(service, caller, ["ada"])
    assert second.duplicate_of == first.id
    assert {now(service, caller, one).state for one in (first, second)} == {"purging"}
    assert count(service, LedgerEntry) == 1


def test_rows_that_came_after_an_approval_are_not_left_to_it(service, caller, tenant, data):
    first = ask(service, caller, ["ada"])
    fresh = a_dataset_of(service, tenant.id, rows(ant=1), [["ada"]])
    second = ask(service, caller, ["ada"])
    assert second.duplicate_of is None
    assert unusable(service, fresh) == {0}
    assert second.ledger_sequence > first.ledger_sequence


def test_cancelling_before_approval_lifts_the_restriction(service, data, clerk):
    asked = ask(service, clerk, ["ada"])
    assert decisions.cancel(service, clerk, asked.id, "withdrawn", None).state == "cancelled"
    assert unusable(service, data) == set()
    assert count(service, LedgerEntry) == 0


def test_cancelling_after_approval_lifts_the_entry_and_ends_a_job_of_its_own(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    other = ask(service, caller, ["cleo"])
    decisions.cancel(service, caller, asked.id, None, None)
    assert unusable(service, data) == {3}
    assert service.ledger.get(asked.id, "lift").body["actor"] == caller.actor
    assert len(forget_jobs(service)) == 1  # the other waits for it

    decisions.cancel(service, caller, other.id, None, None)
    assert (unusable(service, data), forget_jobs(service)) == (set(), [])
    assert len(forget_jobs(service, "cancelled")) == 1


def test_what_a_job_has_taken_up_is_neither_cancelled_nor_held(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    claimed, _ = take_up(service, model)
    for stop in (
        lambda: decisions.cancel(service, caller, asked.id, None, None),
        lambda: decisions.hold(service, caller, asked.id, Hold(reason="suit"), None),
    ):
        with pytest.raises(RequestStateConflict):
            stop()
    with pytest.raises(JobNotCancellable):
        job_wishes.cancel(service, caller, claimed.id)


def test_a_hold_suspends_the_erasure_until_it_is_released(service, data, model, clerk, chief):
    asked = ask(service, clerk, ["ada"])
    held = decisions.hold(service, chief, asked.id, Hold(reason="suit"), None)
    assert held.hold is not None
    assert held.hold.actor == chief.actor
    approved = decisions.approve_request(service, chief, asked.id, None)
    assert (approved.state, forget_jobs(service)) == ("locating", [])
    assert unusable(service, data) == {0, 2}

    other = ask(service, clerk, ["cleo"])
    decisions.approve_request(service, chief, other.id, None)
    claimed, taken = take_up(service, model)
    assert taken == [other.id]
    succeed(service, claimed, model, taken)

    released = decisions.release(service, chief, asked.id, None)
    assert (released.state, released.hold) == ("locating", None)
    assert take_up(service, model)[1] == [asked.id]


def test_a_hold_on_an_approved_request_takes_it_from_its_job_and_ends_by_itself(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    soon = datetime.now(UTC) + timedelta(hours=1)
    decisions.hold(service, caller, asked.id, Hold(reason="suit", until=soon), None)
    assert forget_jobs(service) == []
    assert sweeps.end_holds(service) == 0

    with service.db.begin() as session:
        past = (clock(session) - timedelta(seconds=1)).isoformat()
        [request] = states.lock(session, [asked.id])
        request.hold = {**(request.hold or {}), "until": past}
    assert sweeps.end_holds(service) == 1
    assert len(forget_jobs(service)) == 1
    assert now(service, caller, asked).hold is None


def test_a_hold_keeps_the_purge_of_an_unknown_person_too(service, clerk, chief):
    asked = ask(service, clerk, ["nobody"])
    decisions.hold(service, chief, asked.id, Hold(reason="suit"), None)
    assert decisions.approve_request(service, chief, asked.id, None).state == "locating"
    assert count(service, Job, kind="purge") == 0
    assert decisions.release(service, chief, asked.id, None).state == "purging"
    assert count(service, Job, kind="purge") == 1


def test_a_failed_job_fails_its_requests_until_they_are_retried(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    claimed, _ = take_up(service, model)
    jobs.fail(service, claimed, Cause.INTERNAL)
    failed = now(service, caller, asked)
    assert (failed.state, failed.done) == ("failed", False)
    assert models_of(failed)[0].detail == {"failed_at": "unlearning", "cause": "internal"}
    assert [item.state for stage in failed.stages for item in stage.items] == ["done", "failed"]
    with pytest.raises(JobNotRetryable):
        job_wishes.retry(service, caller, claimed.id)

    again = decisions.retry(service, caller, asked.id, Retry(), None)
    assert again.state == "locating"
    assert job(service, models_of(again)[0].job).retry_of == claimed.id
    claimed, taken = take_up(service, model)
    succeed(service, claimed, model, taken)
    assert now(service, caller, asked).state == "purging"


def test_a_request_is_where_its_least_advanced_model_is(service, caller, data, model):
    other = a_model(service, caller)
    learn(service, caller, other, [data])
    asked = ask(service, caller, ["ada"])
    claimed = claim(service, "cpu", "gpu")
    assert claimed.model_id is not None
    with service.db.begin() as session:
        states.take(session, claimed.model_id, claimed.id)
    assert now(service, caller, asked).state == "locating"
    with pytest.raises(RequestStateConflict):  # one model has begun
        decisions.cancel(service, caller, asked.id, None, None)
    with service.db.begin() as session:
        jobs.finish(session, claimed, {})
        assert states.model_done(session, claimed.model_id, [asked.id], {}) is None
    claimed = claim(service, "cpu", "gpu")
    assert claimed.model_id is not None
    with service.db.begin() as session:
        states.take(session, claimed.model_id, claimed.id)
    assert now(service, caller, asked).state == "unlearning"


def test_a_running_update_makes_way_for_a_forget_of_its_model(service, caller, tenant, data, model):
    submit(service, caller, model, [a_dataset_of(service, tenant.id, rows(cat=2), [["ada"], []])])
    update = claim(service, "cpu", "gpu")
    assert jobs.look(service, update) is Signal.CONTINUE
    ask(service, caller, ["ada"])
    assert jobs.look(service, update) is Signal.STOP


def test_two_persons_decide_where_that_is_set(service, tenant, data):
    strict = _with(service, two_person=True)
    both = key(tenant.id, "forget:create", "forget:approve")
    asked = ask(strict, both, ["ada"])
    assert asked.state == "awaiting-approval"
    with pytest.raises(ApprovalRequired):
        decisions.approve_request(strict, both, asked.id, None)
    other = key(tenant.id, "forget:approve")
    assert decisions.approve_request(strict, other, asked.id, None).decider == other.actor


def test_a_window_for_others_ends_at_the_due_date_at_the_latest(service, caller, data, model):
    patient = _with(service, batch_window_seconds=3600)
    ask(patient, caller, ["ada"])
    [waiting] = forget_jobs(service)
    assert timedelta(seconds=3590) < waiting.not_before - waiting.created_at <= timedelta(seconds=3610)
    soon = datetime.now(UTC) + timedelta(minutes=5)
    ask(patient, caller, ["cleo"], due_at=soon.isoformat())
    [waiting] = forget_jobs(service)
    assert abs(waiting.not_before - soon) < timedelta(seconds=1)
    assert waiting.urgency < 0


def test_jobs_grow_more_urgent_as_the_day_nears(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    assert forget_jobs(service)[0].urgency == 0
    assert sweeps.keep_dates(service) == 0
    with service.db.begin() as session:
        [request] = states.lock(session, [asked.id])
        request.due_at = clock(session) + timedelta(days=1)
    assert sweeps.keep_dates(service) == 1
    assert forget_jobs(service)[0].urgency == -3


def test_is_extended_once_and_with_a_reason(service, caller, data):
    asked = ask(service, caller, ["nobody"], submitted_at="2026-01-31T12:00:00Z")
    assert asked.due_at == datetime(2026, 2, 28, 12, tzinfo=UTC)
    assert asked.overdue
    more = decisions.extend(service, caller, asked.id, Extension(reason="many sources"), None)
    assert more.due_at == datetime(2026, 4, 30, 12, tzinfo=UTC)
    assert more.extension is not None
    assert more.extension.due_before == asked.due_at
    with pytest.raises(RequestStateConflict):
        decisions.extend(service, caller, asked.id, Extension(reason="again"), None)


def test_a_purge_that_failed_is_queued_again(service, caller):
    asked = ask(service, caller, ["nobody"])
    assert sweeps.purge_again(service) == 0
    with service.db.begin() as session:
        [purge] = session.scalars(select(Job).filter_by(kind="purge"))
        purge.state, purge.created_at = "failed", clock(session) - timedelta(days=1)
    assert sweeps.purge_again(service) == 1
    assert now(service, caller, asked).state == "purging"


def test_an_approval_killed_before_its_commit_is_committed_by_the_sweep(service, data, model, clerk, chief):
    asked = ask(service, clerk, ["ada"])
    killed_after_the_object(service, lambda mine: decisions.approve_request(mine, chief, asked.id, None))
    assert row(service, asked.id).state == "awaiting-approval"
    late = a_dataset_of(service, clerk.tenant_id, rows(cat=1), [["ada"]])
    with pytest.raises(RequestStateConflict):
        decisions.reject(service, chief, asked.id, "too late", None)

    assert sweeps.commit_ledger_objects(service) == 1
    found = now(service, chief, asked)
    assert (found.state, found.decider) == ("locating", chief.actor)
    assert len(forget_jobs(service)) == 1
    assert unusable(service, data) == {0, 2}
    assert service.ledger.get(asked.id, "approve").body["rows"] == {data.id.hex: [0, 2], late.id.hex: [0]}
    assert sweeps.commit_ledger_objects(service) == 0
    assert audit.verify(service).broken_at is None


def test_a_lift_killed_before_its_commit_is_committed_too(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    killed_after_the_object(service, lambda mine: decisions.cancel(mine, caller, asked.id, None, None))
    assert row(service, asked.id).state == "locating"
    assert sweeps.commit_ledger_objects(service) == 1
    assert now(service, caller, asked).state == "cancelled"
    assert (unusable(service, data), forget_jobs(service)) == (set(), [])


def test_a_lift_that_came_too_late_is_dropped(service, caller, data, model):
    asked = ask(service, caller, ["ada"])
    killed_after_the_object(service, lambda mine: decisions.cancel(mine, caller, asked.id, None, None))
    take_up(service, model)
    assert sweeps.commit_ledger_objects(service) == 0
    assert service.ledger.get(asked.id, "lift") is None
    assert now(service, caller, asked).state == "unlearning"


def test_a_request_killed_with_its_receipt_leaves_no_trace_in_the_database(service, caller, data):
    killed_after_the_object(service, lambda mine: ask(mine, caller, ["ada"]))
    assert [found.kind for found in service.ledger.all()] == ["approve"]
    assert sweeps.commit_ledger_objects(service) == 0
    assert unusable(service, data) == set()


def test_the_same_key_has_one_effect_and_another_name_is_another_request(service, caller, data):
    first = ask(service, caller, ["Zoé"], idempotency_key="k")
    with pytest.raises(Replay) as replayed:
        ask(service, caller, [" Zoe\u0301"], idempotency_key="k")
    assert replayed.value.stored.body["id"] == ids.encode("fgt", first.id)
    with pytest.raises(IdempotencyMismatch):
        ask(service, caller, ["ben"], idempotency_key="k")


def test_refuses_what_is_not_there_and_leaves_nothing(service, caller, tenant, data, model):
    other = a_tenant(service, "another")
    theirs = a_dataset_of(service, other.id, rows(ant=1), [["ada"]])
    own, foreign = ids.encode("dst", data.id), ids.encode("dst", theirs.id)
    with service.db.read() as session:
        ant = session.scalar(select(ModelClass).filter_by(model_id=model.id, name="ant"))
    second = ids.encode("mdl", a_model(service, caller).id)
    for error, pointer, body in (
        (NotFound, "/targets/0/dataset", ([{"dataset": foreign, "positions": [0]}], "samples")),
        (ValidationFailed, "/targets/0/positions", ([{"dataset": own, "positions": [6]}], "samples")),
        (NotFound, "/targets/1", ([ids.encode("cls", ant.id), ids.encode("cls", ids.new())], "class")),
        (ValidationFailed, "/targets/0", (["ant"], "class")),
        (ValidationFailed, "/targets/0", ([{"dataset": own, "positions": [0]}], "subject")),
    ):
        with pytest.raises(error) as refused:
            ask(service, caller, *body)
        assert [fault.pointer for fault in refused.value.errors] == [pointer]
    wrong: list[tuple[type[AppError], str, list[str], dict[str, Any]]] = [
        (NotFound, "/models/0", ["ada"], {"models": [ids.encode("mdl", ids.new())]}),
        (NotFound, "/rows", ["ada"], {"rows": foreign}),
        (ValidationFailed, "/rows", ["ada"], {"rows": own}),
        (ValidationFailed, "/method/name", ["ada"], {"method": {"name": "ncm"}}),
        (DeadlinePassed, "/due_at", ["ada"], {"due_at": "2026-01-01T00:00:00Z"}),
        (ValidationFailed, "/targets/0", [ids.encode("cls", ant.id)], {"scope": "class", "models": [second]}),
    ]
    for refusal, pointer, targets, fields in wrong:
        with pytest.raises(refusal) as refused:
            ask(service, caller, targets, **fields)
        assert refused.value.errors[0].pointer == pointer
    late = ForgetCreate(scope="subject", targets=["ada"], due_at=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(DeadlinePassed):
        previews.preview(service, caller, late)
    with pytest.raises(ValidationError, match=r'a method is an object: \{"name": "auto"\}'):
        ForgetCreate.model_validate({"scope": "subject", "targets": ["ada"], "method": "scrub"})
    assert (count(service, ForgetTarget), list(service.ledger.all())) == (0, [])


def test_ten_thousand_persons_fit_in_one_request(service, caller, data, clerk):
    names = [f"person {i}" for i in range(9_998)] + ["ada", "cleo"]
    asked = ask(service, clerk, names)
    assert (asked.persons, asked.evidence["rows"]) == (10_000, 3)
    assert count(service, ForgetTarget) == 10_000


def test_a_list_is_filtered_and_every_look_is_in_the_audit_chain(service, caller, tenant, data, model):
    known = ask(service, caller, ["ada"], external_id="ticket-1")
    ask(service, caller, ["nobody"])
    shown = {}
    for name, filters in {
        "state": reads.Filters(state="purging"),
        "model": reads.Filters(model_id=model.id),
        "external": reads.Filters(external_id="ticket-1"),
        "after": reads.Filters(created_after=known.created_at),
    }.items():
        shown[name] = [seen.id == known.id for seen in reads.browse(service, caller, Page(9), filters).rows]
    assert shown == {"state": [False], "model": [True], "external": [True], "after": [False]}
    now(service, caller, known)
    looked = audit.browse(service, tenant.id, Page(500), action=None, created_after=None).rows
    assert [event.action for event in looked].count("forget.listed") == 4
    assert [event.resources for event in looked if event.action == "forget.read"] == [
        {"forget_request": known.id.hex}
    ]


def test_the_same_person_asked_for_by_many_at_once_is_one_erasure(service, caller, data, model):
    with ThreadPoolExecutor(6) as pool:
        asked = list(pool.map(lambda _: ask(service, caller, ["ada"]), range(6)))
    first = {one.id for one in asked if one.duplicate_of is None}
    assert len(first) == 1
    assert {one.duplicate_of for one in asked} == {None, *first}
    assert count(service, LedgerEntry) == 1
    assert len(forget_jobs(service)) == 1


def test_a_cancellation_that_races_the_claim_has_one_outcome(service, caller, data, model):
    for name in ("ada", "ben", "cleo", "dan"):
        asked = ask(service, caller, [name])
        claimed = claim(service, "cpu", "gpu")

        def take(claimed=claimed):
            with service.db.begin() as session:
                jobs.guard(session, claimed)
                return [one.id for one in states.take(session, model.id, claimed.id)]

        def cancel(asked=asked):
            try:
                return decisions.cancel(service, caller, asked.id, None, None).state
            except RequestStateConflict:
                return "taken"

        with ThreadPoolExecutor(2) as pool:
            taken, cancelled = pool.submit(take), pool.submit(cancel)
        outcome = (taken.result(), cancelled.result(), row(service, asked.id).state)
        assert outcome in (([asked.id], "taken", "unlearning"), ([], "cancelled", "cancelled"))
        succeed(service, claimed, model, taken.result())


def _with(service, **forget):
    """The service under other settings."""
    return replace(service, settings=service.settings.model_copy(update={"forget": Forget(**forget)}))
