"""The life of a job in the database, on both stacks."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app.db import clock
from app.errors import JobNotCancellable, JobNotRetryable, NotFound
from app.ids import new
from app.service import Caller
from app.services import jobs
from app.services.jobs import Cause, LeaseLost, Signal, Stopped, Urgency
from app.services.jobs import asked as job_wishes
from app.services.jobs.rows import LOG_CHARACTERS, LOG_LINES
from app.tables import AuditEvent, Job, JobEvent
from tests.conftest import a_tenant
from tests.factories import a_job


def read(service, job):
    with service.db.read() as session:
        return session.get_one(Job, job.id)


def claim(service, *queues):
    return jobs.claim(service, queues or ("cpu",), "a worker")


def change(service, job, **values):
    with service.db.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(**values))


def succeed(service, claimed):
    with service.db.begin() as session:
        jobs.guard(session, claimed)
        jobs.finish(session, claimed, {"version": 1})


def expire(service, job):
    with service.db.begin() as session:
        late = clock(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job.id).values(lease_expires_at=late))


def due_now(service, job):
    with service.db.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(not_before=clock(session)))


def story(service, job, event="state"):
    with service.db.read() as session:
        rows = jobs.events_after(session, job.id, 0)
        return [row.data for row in rows if row.event == event]


# the claim


def test_a_claim_starts_the_oldest_job(service, tenant):
    first, second = a_job(service, tenant), a_job(service, tenant)

    assert [claim(service).id, claim(service).id] == [first.id, second.id]
    assert claim(service) is None
    row = read(service, first)
    assert (row.state, row.attempt, row.lease_epoch, row.lease_owner) == ("running", 1, 1, "a worker")
    assert row.lease_expires_at - row.heartbeat_at == timedelta(seconds=60)


def test_a_claim_takes_erasure_first_and_work_without_lane_last(service, tenant):
    free = a_job(service, tenant)
    update_ = a_job(service, tenant, lane=new())
    erasure = a_job(service, tenant, lane=new(), urgency=Urgency.ERASURE)

    assert [claim(service).id for _ in range(3)] == [erasure.id, update_.id, free.id]


def test_a_claim_serves_only_its_queues(service, tenant):
    job = a_job(service, tenant, queue="io")

    assert claim(service, "cpu", "gpu") is None
    assert claim(service, "io").id == job.id


def test_a_claim_waits_until_a_job_is_due(service, tenant):
    job = a_job(service, tenant)
    with service.db.begin() as session:
        change_to = clock(session) + timedelta(hours=1)
    change(service, job, not_before=change_to)

    assert claim(service) is None


def test_fifty_parallel_claims_start_each_job_once(service, tenant):
    queued = [a_job(service, tenant) for _ in range(5)] + [a_job(service, tenant, lane=new())]

    with ThreadPoolExecutor(8) as pool:
        claimed = [c for c in pool.map(lambda _: claim(service), range(50)) if c]

    assert Counter(c.id for c in claimed) == Counter(job.id for job in queued)
    assert all(read(service, job).attempt == 1 for job in queued)


def test_parallel_claims_give_a_lane_to_one_job(service, tenant):
    lane = new()
    first, *_ = [a_job(service, tenant, lane=lane) for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        claimed = [c for c in pool.map(lambda _: claim(service), range(12)) if c]

    assert [c.id for c in claimed] == [first.id]


# lanes


def test_a_held_lane_blocks_the_next_job_and_says_by_whom(service, tenant):
    lane = new()
    first, second = a_job(service, tenant, lane=lane), a_job(service, tenant, lane=lane)
    holder = claim(service)

    assert claim(service) is None
    with service.db.read() as session:
        waiting = [session.get_one(Job, job.id) for job in (first, second)]
        assert jobs.blocked_by(session, waiting) == {second.id: [first.id]}
    succeed(service, holder)
    assert claim(service).id == second.id


def test_erasure_passes_older_work_of_its_lane(service, tenant):
    lane = new()
    a_job(service, tenant, lane=lane)
    erasure = a_job(service, tenant, lane=lane, urgency=Urgency.ERASURE)

    assert claim(service).id == erasure.id
    assert claim(service) is None


def test_a_job_that_waits_for_its_next_attempt_keeps_its_place(service, tenant):
    lane = new()
    first, second = a_job(service, tenant, lane=lane), a_job(service, tenant, lane=lane)
    change(service, first, stalls=8)
    jobs.fail(service, claim(service), Cause.DEPENDENCY)
    with service.db.begin() as session:
        session.execute(
            update(Job).where(Job.id == first.id).values(not_before=clock(session) + timedelta(minutes=1))
        )

    assert claim(service) is None
    with service.db.read() as session:
        assert jobs.blocked_by(session, [session.get_one(Job, second.id)]) == {second.id: [first.id]}


def test_a_job_without_lane_makes_way_for_one_with_a_lane(service, tenant):
    a_job(service, tenant)
    free = claim(service)
    assert jobs.look(service, free) is Signal.CONTINUE

    other = a_job(service, tenant, lane=new())

    assert jobs.look(service, free) is Signal.STOP
    jobs.requeue(service, free, "made way")
    assert claim(service).id == other.id
    again = claim(service)
    assert (again.id, again.attempt) == (free.id, 1)


def test_a_job_of_equal_urgency_is_not_interrupted(service, tenant):
    a_job(service, tenant, urgency=Urgency.ERASURE)
    drill = claim(service)

    a_job(service, tenant, lane=new(), urgency=Urgency.ERASURE)

    assert jobs.look(service, drill) is Signal.CONTINUE


# the lease


def test_a_renewal_moves_the_end_of_the_lease(service, tenant):
    job = a_job(service, tenant)
    claimed = claim(service)
    expire(service, job)
    before = read(service, job).lease_expires_at

    assert jobs.renew(service, claimed) is Signal.CONTINUE
    assert read(service, job).lease_expires_at - before > timedelta(seconds=59)


def test_a_lost_lease_writes_nothing(service, tenant):
    job = a_job(service, tenant)
    old = claim(service)
    expire(service, job)
    jobs.sweep(service)
    due_now(service, job)
    new_owner = claim(service)

    assert new_owner.epoch > old.epoch
    assert jobs.renew(service, old) is Signal.LOST
    assert jobs.progress(service, old, {"fraction": 0.9}) is Signal.LOST
    for write in (
        lambda: succeed(service, old),
        lambda: jobs.cancelled(service, old),
        lambda: jobs.fail(service, old, Cause.INTERNAL),
        lambda: jobs.requeue(service, old, "worker stopped"),
    ):
        with pytest.raises(LeaseLost):
            write()
    jobs.note_fenced(service, old)
    jobs.note_fenced(service, new_owner)
    row = read(service, job)
    assert (row.state, row.lease_epoch, row.progress) == ("running", new_owner.epoch, {})
    assert (row.expired, row.fenced) == (1, 1)


def test_a_lease_is_lost_as_soon_as_it_was_swept(service, tenant):
    job = a_job(service, tenant)
    claimed = claim(service)
    expire(service, job)

    assert jobs.sweep(service).expired == 1
    with pytest.raises(LeaseLost):
        succeed(service, claimed)


def test_a_live_lease_is_not_swept(service, tenant):
    a_job(service, tenant)
    claim(service)

    assert jobs.sweep(service).expired == 0


def test_progress_is_stored_and_told(service, tenant):
    job = a_job(service, tenant)
    told = {"fraction": 0.25, "phase": "train", "message": "", "eta_seconds": 3}

    assert jobs.progress(service, claim(service), told) is Signal.CONTINUE
    assert read(service, job).progress == told
    assert story(service, job, "progress") == [told]


# the end, by its cause


def test_success_is_final(service, tenant, caller):
    job = a_job(service, tenant)
    claimed = claim(service)
    succeed(service, claimed)

    row = read(service, job)
    assert (row.state, row.result, row.error) == ("succeeded", {"version": 1}, None)
    assert row.progress["fraction"] == 1.0
    assert row.finished_at is not None
    with pytest.raises(LeaseLost):
        jobs.fail(service, claimed, Cause.INTERNAL)
    with pytest.raises(JobNotCancellable):
        job_wishes.cancel(service, caller, job.id)
    assert jobs.renew(service, claimed) is Signal.LOST
    assert read(service, job).state == "succeeded"


@pytest.mark.parametrize(
    "cause", [Cause.INVALID_INPUT, Cause.ARTIFACT_CORRUPT, Cause.TIMEOUT, Cause.INTERNAL]
)
def test_it_fails_at_once_where_another_attempt_would_fail_too(service, tenant, cause):
    job = a_job(service, tenant)
    jobs.fail(service, claim(service), cause, "why", [{"pointer": "/datasets/0"}])

    row = read(service, job)
    assert (row.state, row.result) == ("failed", None)
    assert row.error == {"cause": cause, "detail": "why", "errors": [{"pointer": "/datasets/0"}]}


def test_a_lost_worker_is_followed_by_two_more_and_no_third(service, tenant):
    job = a_job(service, tenant, max_attempts=10)
    for attempt in (1, 2, 3):
        assert claim(service).attempt == attempt
        expire(service, job)
        jobs.sweep(service)

    row = read(service, job)
    assert (row.state, row.error["cause"], row.lost) == ("failed", "worker-lost", 3)


def test_a_poisoned_job_lets_its_lane_move_on(service, tenant):
    lane = new()
    poison, healthy = a_job(service, tenant, lane=lane), a_job(service, tenant, lane=lane)
    for _ in range(3):
        assert claim(service).id == poison.id
        expire(service, poison)
        jobs.sweep(service)

    assert claim(service).id == healthy.id


def test_out_of_memory_is_tried_once_more_with_half_the_batch(service, tenant):
    job = a_job(service, tenant)
    first = claim(service)
    jobs.fail(service, first, Cause.OUT_OF_MEMORY)
    second = claim(service)
    jobs.fail(service, second, Cause.OUT_OF_MEMORY)

    assert (first.halve_batch, second.halve_batch) == (False, True)
    assert (read(service, job).state, read(service, job).error["cause"]) == ("failed", "out-of-memory")


def test_a_dependency_is_waited_for_longer_each_time_without_counting(service, tenant):
    job = a_job(service, tenant, max_attempts=1)
    for stall in range(12):
        claimed = claim(service)
        assert claimed.attempt == 1
        jobs.fail(service, claimed, Cause.DEPENDENCY)
        row = read(service, job)
        assert row.state == "queued"
        assert timedelta() <= row.not_before - row.queued_at <= timedelta(seconds=min(300, 2 * 2**stall))
        due_now(service, job)


def test_a_dependency_costs_attempts_after_a_quarter_of_an_hour(service, tenant):
    job = a_job(service, tenant, max_attempts=2)
    with service.db.begin() as session:
        long_ago = clock(session) - timedelta(minutes=16)
    change(service, job, stalled_since=long_ago)
    for _ in range(2):
        jobs.fail(service, claim(service), Cause.DEPENDENCY)
        due_now(service, job)

    assert (read(service, job).state, read(service, job).error["cause"]) == ("failed", "dependency")


def test_an_attempt_that_worked_for_long_begins_the_wait_anew(service, tenant):
    job = a_job(service, tenant, max_attempts=1)
    claimed = claim(service)
    with service.db.begin() as session:
        now = clock(session)
    hours_ago, minutes_ago = now - timedelta(hours=3), now - timedelta(minutes=10)
    change(service, job, stalled_since=hours_ago, stalls=9, started_at=minutes_ago)

    jobs.fail(service, claimed, Cause.DEPENDENCY)

    row = read(service, job)
    assert (row.state, row.attempt, row.stalls) == ("queued", 0, 1)
    assert row.stalled_since >= now


def test_space_is_waited_for_however_long_it_takes(service, tenant):
    job = a_job(service, tenant, max_attempts=1)
    with service.db.begin() as session:
        long_ago = clock(session) - timedelta(days=2)
    change(service, job, stalled_since=long_ago)
    for _ in range(3):
        jobs.fail(service, claim(service), Cause.STORAGE_FULL)
        due_now(service, job)

    assert read(service, job).state == "queued"


def test_a_superseded_job_starts_again_at_once_uncounted(service, tenant):
    job = a_job(service, tenant, max_attempts=1)
    for _ in range(3):
        jobs.fail(service, claim(service), Cause.SUPERSEDED)

    assert claim(service).attempt == 1
    assert read(service, job).state == "running"


def test_a_job_whose_worker_leaves_is_queued_again_uncounted(service, tenant):
    job = a_job(service, tenant, max_attempts=1)
    jobs.requeue(service, claim(service), "worker stopped")

    assert (read(service, job).state, read(service, job).attempt) == ("queued", 0)
    assert claim(service).attempt == 1


# cancel and retry


def test_a_queued_job_is_cancelled_at_once(service, tenant, caller):
    job = a_job(service, tenant)

    assert job_wishes.cancel(service, caller, job.id).state == "cancelled"
    row = read(service, job)
    assert (row.state, row.error["cause"], row.result) == ("cancelled", "cancelled", None)
    assert claim(service) is None
    with service.db.read() as session:
        assert session.scalars(select(AuditEvent.action)).all() == ["job.cancelled"]


def test_asking_again_is_audited_once(service, tenant, caller):
    job = a_job(service, tenant)
    claim(service)
    for _ in range(3):
        job_wishes.cancel(service, caller, job.id)
    ended = a_job(service, tenant)
    job_wishes.cancel(service, caller, ended.id)
    with service.db.begin() as session:
        jobs.cancel_in(session, caller, ended.id)

    with service.db.read() as session:
        assert session.scalars(select(AuditEvent.action)).all() == ["job.cancelled"] * 2


def test_a_running_job_hears_of_its_cancellation(service, tenant, caller):
    job = a_job(service, tenant)
    claimed = claim(service)

    assert job_wishes.cancel(service, caller, job.id).state == "cancelling"
    assert job_wishes.cancel(service, caller, job.id).state == "cancelling"
    assert jobs.look(service, claimed) is Signal.CANCEL
    assert jobs.renew(service, claimed) is Signal.CANCEL
    jobs.cancelled(service, claimed)
    assert read(service, job).state == "cancelled"
    assert [line["state"] for line in story(service, job)] == ["queued", "running", "cancelling", "cancelled"]


def test_a_cancelled_job_does_not_publish(service, tenant, caller):
    job = a_job(service, tenant)
    claimed = claim(service)
    job_wishes.cancel(service, caller, job.id)

    with pytest.raises(Stopped) as stopped:
        succeed(service, claimed)
    assert stopped.value.signal is Signal.CANCEL
    assert read(service, job).result is None


def test_a_cancelling_job_that_loses_its_worker_is_cancelled(service, tenant, caller):
    job = a_job(service, tenant)
    claim(service)
    job_wishes.cancel(service, caller, job.id)
    expire(service, job)
    jobs.sweep(service)

    assert read(service, job).state == "cancelled"


def test_cancel_racing_success_has_one_winner(service, tenant, caller):
    for _ in range(10):
        job = a_job(service, tenant)
        claimed = claim(service)

        def publish(claimed=claimed):
            try:
                succeed(service, claimed)
            except Stopped:
                return "stopped"
            return "published"

        def cancel(job=job):
            try:
                job_wishes.cancel(service, caller, job.id)
            except JobNotCancellable:
                return "refused"
            return "accepted"

        with ThreadPoolExecutor(2) as pool:
            outcomes = pool.submit(publish), pool.submit(cancel)
            published, cancelled = (str(future.result()) for future in outcomes)

        assert (published, cancelled) in {("published", "refused"), ("stopped", "accepted")}
        if published == "stopped":
            jobs.cancelled(service, claimed)
        assert read(service, job).state == ("succeeded" if published == "published" else "cancelled")


def test_a_purge_is_not_cancelled(service, tenant, caller):
    job = a_job(service, tenant, kind="purge")

    with pytest.raises(JobNotCancellable):
        job_wishes.cancel(service, caller, job.id)


def test_another_tenants_job_is_unknown(service, tenant):
    other = a_tenant(service, "other")
    stranger = Caller(tenant_id=other.id, key_id=new(), scopes=frozenset({"admin"}))
    job = a_job(service, tenant)

    for wish in (job_wishes.cancel, job_wishes.retry):
        with pytest.raises(NotFound):
            wish(service, stranger, job.id)


def test_a_retry_is_a_new_job_that_names_the_old(service, tenant, caller):
    job = a_job(service, tenant, lane=new(), request={"seed": 3})
    jobs.fail(service, claim(service), Cause.INTERNAL)

    retried = job_wishes.retry(service, caller, job.id)

    again = read(service, retried)
    assert (again.retry_of, again.state, again.request, again.lane) == (
        job.id,
        "queued",
        {"seed": 3},
        job.lane,
    )
    assert read(service, job).state == "failed"
    assert claim(service).id == again.id


def test_a_retry_has_the_rights_of_who_asks_for_it(service, tenant, caller):
    job = a_job(service, tenant, request={"may_promote": True})
    jobs.fail(service, claim(service), Cause.INTERNAL)
    trainer = replace(caller, scopes=frozenset({"read", "train"}))

    by_trainer = job_wishes.retry(service, trainer, job.id)
    jobs.fail(service, claim(service), Cause.INTERNAL)
    by_admin = job_wishes.retry(service, caller, job.id)

    assert read(service, by_trainer).request == {"may_promote": False}
    assert read(service, by_admin).request == {"may_promote": True}


def test_a_job_that_is_not_over_cannot_be_retried(service, tenant, caller):
    job = a_job(service, tenant)

    with pytest.raises(JobNotRetryable):
        job_wishes.retry(service, caller, job.id)


# the story and the bell


def test_the_story_ends_with_done(service, tenant):
    job = a_job(service, tenant)
    succeed(service, claim(service))

    with service.db.read() as session:
        lines = jobs.events_after(session, job.id, 0)
        last = lines[-1]
        assert [line.event for line in lines] == ["state", "state", "state", "done"]
        assert last.data == {"state": "succeeded", "result": {"version": 1}, "error": None}
        assert jobs.events_after(session, job.id, lines[1].sequence)[0].sequence == lines[2].sequence
        assert session.query(JobEvent).count() == 4


def test_the_log_tells_why_attempts_ended(service, tenant):
    job = a_job(service, tenant)
    jobs.requeue(service, claim(service), "worker stopped")
    claim(service)
    expire(service, job)
    jobs.sweep(service)
    jobs.fail(service, claim(service), Cause.INVALID_INPUT, "no such class")

    assert [line["message"] for line in story(service, job, "log")] == [
        "Attempt 1 ended: worker stopped; tries again.",
        "Attempt 1 ended: worker-lost; tries again.",
        "Attempt 2 failed: invalid-input. no such class",
    ]


def test_the_log_of_a_job_is_bounded(service, tenant):
    job = a_job(service, tenant)
    claimed = claim(service)
    with service.db.begin() as session:
        for _ in range(LOG_LINES):
            jobs.say(session, job.id, clock(session), "log", {"message": ""})
    jobs.note(service, claimed, "one too many")
    long = a_job(service, tenant)
    jobs.note(service, claim(service), "x" * 10_000)

    with service.db.read() as session:
        of_job = select(func.count()).where(JobEvent.job_id == job.id, JobEvent.event == "log")
        assert session.scalar(of_job) == LOG_LINES
    assert [len(line["message"]) for line in story(service, long, "log")] == [LOG_CHARACTERS]


class CountingBell:
    def __init__(self, answers=True):
        self.rung = []
        self.answers = answers

    def ring(self, job_id, queue):
        self.rung.append((job_id, queue))
        return self.answers


@pytest.fixture
def bell(service, monkeypatch):
    bell = CountingBell()
    monkeypatch.setattr(service.bell, "ring", bell.ring)
    return bell


def test_the_sweep_rings_for_what_nobody_came_for(service, tenant, bell):
    fresh, forgotten = a_job(service, tenant), a_job(service, tenant, queue="io")
    with service.db.begin() as session:
        old = clock(session) - timedelta(seconds=20)
    change(service, forgotten, rung_at=old)

    assert jobs.sweep(service).rung == 1
    assert bell.rung == [(forgotten.id, "io")]
    assert jobs.sweep(service).rung == 0
    assert read(service, fresh).state == "queued"


def test_the_sweep_rings_once_a_delayed_job_is_due(service, tenant, bell):
    job = a_job(service, tenant)
    jobs.fail(service, claim(service), Cause.DEPENDENCY)
    due_now(service, job)

    jobs.sweep(service)

    assert bell.rung == [(job.id, "cpu")]


def test_the_sweep_rings_for_a_job_that_it_took_back(service, tenant, bell):
    job = a_job(service, tenant)
    claim(service)
    expire(service, job)

    jobs.sweep(service)

    assert bell.rung == [(job.id, "cpu")]


def test_the_sweep_stops_ringing_where_the_broker_is_away(service, tenant, bell):
    bell.answers = False
    with service.db.begin() as session:
        old = clock(session) - timedelta(seconds=20)
    for _ in range(3):
        change(service, a_job(service, tenant), rung_at=old)

    assert jobs.sweep(service).rung == 0
    assert len(bell.rung) == 1
