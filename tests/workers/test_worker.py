"""A real worker on a real broker and database: what it does with a job, and what it hears."""

import signal

import pytest

from app.ids import new
from app.services import jobs
from tests.workers.watching import Nap, computing, gone, read, until


@pytest.fixture
def nap(service, tenant, tmp_path):
    return lambda **asked: Nap(service, tenant, tmp_path, **asked)


def test_it_runs_a_job_once_however_often_the_bell_rings(service, worker, nap):
    job = nap(seconds=0.2)
    for _ in range(5):
        service.bell.ring(job.id, "cpu")
    after = nap()

    assert job.done().state == "succeeded"
    assert after.done().state == "succeeded"
    assert [line[0] for line in job.lines()] == [
        "start",
        "computing",
        "saved",
        "publishing",
        "published",
        "end",
    ]


def test_it_keeps_its_computing_process_warm(service, worker, nap):
    first, second = nap().done(), nap().done()

    assert first.result["pid"] == second.result["pid"]
    assert computing(worker) == [first.result["pid"]]


def test_it_looks_for_work_before_it_listens(start_worker, nap):
    job = nap(ring=False)
    start_worker()

    assert job.done().state == "succeeded"


def test_it_leaves_other_queues_alone(service, worker, nap):
    other, own = nap(queue="io"), nap()

    own.done()
    assert read(service, other.job).state == "queued"


def test_two_workers_share_a_lane_one_job_at_a_time(start_worker, nap):
    for _ in range(2):
        start_worker()
    lane = new()
    first, second = nap(lane=lane, seconds=0.3), nap(lane=lane)

    assert second.done().started_at >= first.done().finished_at


def test_a_cancelled_job_stops_and_its_process_stays(service, caller, worker, nap):
    job = nap(seconds=60)
    pid = job.noted("start")[2]
    jobs.cancel(service, caller, job.id)

    assert job.done().state == "cancelled"
    assert nap().done().result["pid"] == pid


def test_a_cancelled_job_that_does_not_stop_is_ended(service, caller, worker, nap):
    job = nap(hold="computing")
    pid = job.noted("computing")[2]
    jobs.cancel(service, caller, job.id)

    assert job.done().state == "cancelled"
    assert gone(pid)
    assert nap().done().state == "succeeded"


def test_a_cancel_made_while_no_worker_is_there_holds(service, caller, start_worker, nap):
    cancelled, other = nap(), nap()
    jobs.cancel(service, caller, cancelled.id)
    start_worker()

    assert other.done().state == "succeeded"
    assert read(service, cancelled.job).state == "cancelled"
    assert cancelled.lines() == []


def test_a_worker_that_leaves_gives_its_job_back_uncounted(service, start_worker, nap):
    leaving = start_worker()
    job = nap(seconds=60)
    job.noted("start")
    leaving.send_signal(signal.SIGTERM)

    assert leaving.wait(20) == 0
    row = read(service, job.job)
    assert (row.state, row.attempt, row.lost) == ("queued", 0, 0)


def test_out_of_memory_is_tried_again_with_half_the_batch_by_the_same_worker(worker, nap):
    job = nap(error="memory")

    assert job.done().error["cause"] == "out-of-memory"
    assert [halved for _, _, _, halved in job.lines("start")] == [False, True]
    assert nap().done().state == "succeeded"


def test_a_full_disk_is_waited_for(service, worker, nap):
    job = nap(error="full")
    job.noted("start")

    row = until(lambda: r if (r := read(service, job.job)).stalls else None)
    assert (row.state, row.attempt, row.error) == ("queued", 0, None)
