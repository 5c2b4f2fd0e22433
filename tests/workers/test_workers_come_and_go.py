"""Workers that start, leave or meet: what becomes of the jobs."""

import signal

import pytest

from app.config import Jobs
from app.ids import new
from app.services.jobs import asked as job_wishes
from tests.workers.watching import Nap, computing, gone, read, until


@pytest.fixture
def nap(service, tenant, tmp_path):
    return lambda **asked: Nap(service, tenant, tmp_path, **asked)


def test_it_looks_for_work_before_it_listens(start_worker, nap):
    job = nap(ring=False)
    start_worker()

    assert job.done().state == "succeeded"


def test_two_workers_share_a_lane_one_job_at_a_time(start_worker, nap):
    for _ in range(2):
        start_worker()
    lane = new()
    first, second = nap(lane=lane, seconds=0.3), nap(lane=lane)

    assert second.done().started_at >= first.done().finished_at


def test_a_cancel_made_while_no_worker_is_there_holds(service, caller, start_worker, nap):
    cancelled, other = nap(), nap()
    job_wishes.cancel(service, caller, cancelled.id)
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


@pytest.mark.parametrize("jobs_settings", [Jobs(limit_seconds=0.5)])
def test_it_ends_a_job_that_is_over_its_limit(jobs_settings, worker, nap):
    pid = until(lambda: computing(worker))[0]
    row = nap(hold="computing").done()

    assert (row.state, row.error["cause"]) == ("failed", "timeout")
    assert gone(pid)
