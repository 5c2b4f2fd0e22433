"""SIGKILL, at every stage of a job, of the worker and of the process that computes for it.

Whatever is killed, the job ends once, with one result, and no process is left behind.
"""

import os
import signal

import pytest

from tests.workers.watching import Nap, computing, gone, read, until

STAGES = ("start", "computing", "saved", "publishing", "published")


@pytest.fixture
def nap(service, tenant, tmp_path):
    return lambda **asked: Nap(service, tenant, tmp_path, **asked)


def ended_once(service, job, killed_at):
    row = job.done()
    assert row.state == "succeeded", row.error
    if killed_at != "published":
        job.noted("end")
    publications = [attempt for _, attempt, *_ in job.lines("published")]
    if killed_at == "published":  # the publication was there: nothing runs again
        assert (row.result["attempt"], row.lost, publications) == (1, 0, [1])
    else:
        assert (row.result["attempt"], row.lost, publications) == (2, 1, [2])


@pytest.mark.slow
def test_a_killed_computation_is_done_again_by_the_same_worker(service, worker, nap, sweeps):
    for stage in STAGES:
        job = nap(hold=stage)
        pid = job.noted(stage)[2]
        os.kill(pid, signal.SIGKILL)

        ended_once(service, job, stage)
    assert worker.poll() is None


@pytest.mark.slow
def test_a_killed_worker_takes_its_computation_with_it_and_another_does_the_job(
    service, start_worker, nap, sweeps
):
    victim = start_worker()
    for stage in ("computing", "published"):
        job = nap(hold=stage)
        pid = job.noted(stage)[2]
        victim.kill()
        victim.wait()
        until(lambda pid=pid: gone(pid))
        victim = start_worker()

        ended_once(service, job, stage)


@pytest.mark.slow
def test_a_worker_killed_right_after_its_claim_loses_nothing(service, start_worker, nap, sweeps):
    victim = start_worker(module="tests.workers.worker_stuck_at_claim")
    job = nap()
    until(lambda: job.notes.read_text())
    assert read(service, job.job).state == "running"
    job.notes.write_text("")
    victim.kill()
    victim.wait()
    start_worker()

    ended_once(service, job, "claim")


@pytest.mark.slow
def test_a_paused_worker_is_fenced_when_it_wakes(service, start_worker, nap, sweeps):
    paused = start_worker()
    job = nap(hold="saved")
    pid = job.noted("saved")[2]
    for frozen in (paused.pid, pid):
        os.kill(frozen, signal.SIGSTOP)
    start_worker()
    row = job.done()
    job.let_go()
    for frozen in (pid, paused.pid):
        os.kill(frozen, signal.SIGCONT)

    until(lambda: job.lines("fenced"))
    assert [attempt for _, attempt, *_ in job.lines("published")] == [2]
    until(lambda: read(service, job.job).fenced == 1)
    assert read(service, job.job).result == row.result
    assert row.result["pid"] != pid
    until(lambda: computing(paused))
    assert nap().done().state == "succeeded"


@pytest.mark.slow
def test_a_job_that_kills_its_process_every_time_ends_as_poison(service, worker, nap, sweeps):
    job = nap(hold="computing", hold_attempt="every")
    for attempt in (1, 2, 3):
        pid = until(lambda attempt=attempt: [p for s, a, p, _ in job.lines("computing") if a == attempt])[0]
        os.kill(pid, signal.SIGKILL)

    row = job.done()
    assert (row.state, row.error["cause"]) == ("failed", "worker-lost")
    assert nap().done().state == "succeeded"
