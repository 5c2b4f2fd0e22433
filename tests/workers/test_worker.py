"""A real worker on a real broker and database: what it does with a job, and what it hears.

One worker per stack serves all of these tests.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import JobNotCancellable
from app.ids import new
from app.service import open_service
from app.services.jobs import asked as job_wishes
from tests.conftest import STACKS, a_tenant, settings_on
from tests.workers.conftest import SOON, worker_of
from tests.workers.watching import Nap, computing, gone, read, until


@pytest.fixture(scope="module", params=STACKS)
def house(request, tmp_path_factory):
    """A service and its one worker."""
    folder = tmp_path_factory.mktemp("house")
    service = open_service(settings_on(request.param, folder / "data", request, SOON))
    process = worker_of(service)
    yield service, process
    process.kill()
    process.wait()
    service.close()


@pytest.fixture
def service(house):
    return house[0]


@pytest.fixture
def worker(house):
    return house[1]


@pytest.fixture
def tenant(service):
    return a_tenant(service, new().hex)


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


def test_it_leaves_other_queues_alone(service, worker, nap):
    other, own = nap(queue="io"), nap()

    own.done()
    assert read(service, other.job).state == "queued"


def test_a_cancelled_job_stops_and_its_process_stays(service, caller, worker, nap):
    job = nap(seconds=60)
    pid = job.noted("start")[2]
    job_wishes.cancel(service, caller, job.id)

    assert job.done().state == "cancelled"
    assert nap().done().result["pid"] == pid


def test_a_cancelled_job_that_does_not_stop_is_ended(service, caller, worker, nap):
    job = nap(hold="computing")
    pid = job.noted("computing")[2]
    job_wishes.cancel(service, caller, job.id)

    assert job.done().state == "cancelled"
    assert gone(pid)
    assert nap().done().state == "succeeded"


def test_a_cancel_before_the_publication_wins(service, caller, worker, nap):
    job = nap(hold="saved")
    job.noted("saved")
    job_wishes.cancel(service, caller, job.id)
    job.let_go()

    row = job.done()
    assert (row.state, row.result) == ("cancelled", None)


def test_a_cancel_during_the_publication_comes_too_late(service, caller, worker, nap):
    job = nap(hold="publishing")
    job.noted("publishing")
    with ThreadPoolExecutor(1) as pool:
        cancel = pool.submit(job_wishes.cancel, service, caller, job.id)
        job.let_go()
        with pytest.raises(JobNotCancellable):
            cancel.result()

    assert job.done().state == "succeeded"


def test_a_job_without_lane_makes_way_for_one_with_a_lane(service, caller, worker, nap):
    free = nap(seconds=60)
    free.noted("start")
    urgent = nap(lane=new())

    assert urgent.done().state == "succeeded"
    until(lambda: len(free.lines("start")) == 2)
    assert read(service, free.job).attempt == 1
    job_wishes.cancel(service, caller, free.id)
    free.done()


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
