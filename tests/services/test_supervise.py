"""The supervisor of real processes, and what it passes on to them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from app import config
from app.config import Api, Files, Jobs, Settings
from app.services.supervise import Supervisor, environment
from tests.workers.watching import gone, until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)",
]


@pytest.fixture
def supervise():
    started = []

    def start(grace=10.0, **commands):
        supervisor = Supervisor(commands, dict(os.environ), grace)
        started.append(supervisor)
        supervisor.start()
        until(lambda: len(supervisor.pids()) == len(commands))
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop()


def test_it_starts_a_process_again_that_was_killed(supervise):
    supervisor = supervise(one=SLEEP, two=SLEEP)
    before = supervisor.pids()
    os.kill(before["one"], signal.SIGKILL)

    after = until(lambda: p if (p := supervisor.pids()).get("one", before["one"]) != before["one"] else None)
    assert after["two"] == before["two"]


def test_it_leaves_no_process_behind(supervise):
    supervisor = supervise(one=SLEEP, two=SLEEP)
    pids = supervisor.pids().values()
    supervisor.stop()

    assert all(gone(pid) for pid in pids)
    assert supervisor.pids() == {}


def test_it_ends_a_process_that_does_not_listen(supervise):
    supervisor = supervise(grace=0.2, deaf=DEAF)
    (pid,) = supervisor.pids().values()
    supervisor.stop()

    assert gone(pid)


def test_a_process_that_keeps_exiting_is_started_ever_more_slowly(supervise):
    supervisor = Supervisor({"broken": [sys.executable, "-c", ""]}, dict(os.environ), 1.0)
    supervisor.start()
    (child,) = supervisor.children
    pauses = []
    for failures in (1, 2, 3):
        until(lambda failures=failures: child.failures == failures and child.process is None)
        pauses.append(child.due - time.monotonic())
    supervisor.stop()

    assert pauses == sorted(pauses)


def test_one_that_cannot_be_started_does_not_end_the_others():
    supervisor = Supervisor({"missing": ["/nowhere/at/all"], "one": SLEEP}, dict(os.environ), 10.0)
    supervisor.start()
    try:
        missing, one = supervisor.children
        until(lambda: missing.failures >= 2)
        assert list(supervisor.pids()) == ["one"]
    finally:
        supervisor.stop()
    assert one.process is not None
    assert one.process.poll() is not None


SERVE = """
import sys, time
from app import config
from app.services.supervise import supervise
with supervise(config.load().settings) as supervisor:
    while True:
        print(*supervisor.pids().values(), flush=True)
        time.sleep(0.05)
"""


class TestTheWorkersOfAService:
    @pytest.fixture
    def stack(self):
        return "embedded"

    @pytest.fixture
    def jobs_settings(self):
        return Jobs(cancel_grace_seconds=2.0)

    def test_they_end_with_it_however_it_ends(self, service):
        serve = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=environment(service.settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert serve.stdout
        workers: list[int] = []
        while len(workers) < 2:
            workers = [int(pid) for pid in serve.stdout.readline().split()]
        until(lambda: all(psutil.Process(pid).children() for pid in workers))
        computing = [child.pid for pid in workers for child in psutil.Process(pid).children()]
        serve.kill()
        serve.wait()
        serve.stdout.close()

        until(lambda: all(gone(pid) for pid in (*workers, *computing)))


def test_a_child_reads_the_settings_of_its_parent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALIMPSEST__API__PORT", "1")
    settings = Settings(
        data_dir="relative", api=Api(port=2), jobs=Jobs(lease_seconds=31.5), files=Files(keys=tmp_path / "k")
    )

    read = config.load(environ=environment(settings)).settings

    assert read == settings.model_copy(update={"data_dir": tmp_path / "relative"})
