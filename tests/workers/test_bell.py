"""Brokers that are away, lose everything, or fall silent: accepted work is done all the same."""

import shutil
import subprocess
import sys

import pytest

from app.config import Broker, Jobs
from app.service import open_service
from tests.stacks import free_port, start_redis
from tests.workers.watching import Nap, read, until
from workers.main import DEAF


@pytest.fixture
def nap(service, tenant, tmp_path):
    return lambda **asked: Nap(service, tenant, tmp_path, **asked)


def lose_everything(service, servers):
    if service.settings.broker.url:
        servers.broker()
    else:
        for message in (service.settings.data_dir / "broker" / "queue").iterdir():
            message.unlink()


def test_jobs_outlive_a_broker_that_lost_everything(service, servers, start_worker, nap, sweeps):
    queued = [nap() for _ in range(3)]
    lose_everything(service, servers)
    start_worker()

    assert [job.done().state for job in queued] == ["succeeded"] * 3


def test_a_bell_still_rings_after_its_broker_lost_everything(service, servers, worker, nap, sweeps):
    assert nap().done().state == "succeeded"
    lose_everything(service, servers)
    unheard = nap(ring=False)

    assert unheard.done().state == "succeeded"
    assert nap().done().state == "succeeded"


def test_the_sweep_rings_where_a_crash_came_before_the_bell(service, worker, nap, sweeps):
    nap().done()

    assert nap(ring=False).done().state == "succeeded"


@pytest.mark.parametrize("jobs_settings", [Jobs(silent_seconds=1.0)])
def test_a_worker_that_hears_nothing_while_jobs_wait_exits(jobs_settings, start_worker, nap):
    deaf = start_worker()
    nap().done()
    unheard = nap(ring=False)

    def gave_up():
        nonlocal unheard
        if deaf.poll() is None and unheard.lines():  # taken in the loop of the job before: it was not idle
            unheard = nap(ring=False)
        return deaf.poll()

    assert until(gave_up) == DEAF


class TestARedisThatIsAway:
    """The broker of these is their own: it is down at first."""

    @pytest.fixture
    def stack(self):
        return "embedded"

    @pytest.fixture
    def port(self):
        return free_port()

    @pytest.fixture
    def service(self, settings, port):
        broker = Broker(url=f"redis://127.0.0.1:{port}/0")
        service = open_service(settings.model_copy(update={"broker": broker}))
        yield service
        service.close()

    def test_a_submission_tries_it_once(self, service, nap, monkeypatch):
        waits = []

        def wait(seconds):
            waits.append(seconds)
            raise RuntimeError("it would try again")

        monkeypatch.setattr("kombu.utils.functional.sleep", wait)
        job = nap()

        assert waits == []
        assert read(service, job.job).state == "queued"

    def test_it_gets_what_was_accepted_when_it_returns(
        self, service, nap, port, tmp_path, start_worker, sweeps
    ):
        job = nap()
        start_worker()
        redis = start_redis(port, tmp_path)
        try:
            assert job.done().state == "succeeded"
            assert service.bell.ring(nap(ring=False).id, "cpu")
        finally:
            redis.terminate()
            redis.wait()


class TestAFolderThatIsGone:
    """Somebody removed the file system broker."""

    @pytest.fixture
    def stack(self):
        return "embedded"

    def test_a_bell_makes_it_again(self, service, nap):
        shutil.rmtree(service.settings.data_dir / "broker")
        service.bell.ring(nap(ring=False).id, "cpu")

        assert service.bell.ring(nap(ring=False).id, "cpu")


def test_what_celery_imports_reaches_neither_torch_nor_methods_nor_schemas():
    code = "import sys, workers.app, workers.tasks, workers.main; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "workers.tasks" in names
    assert not [n for n in names if n in ("torch", "numpy") or n.startswith(("app.methods", "app.schemas"))]
