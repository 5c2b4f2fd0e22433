import os
import signal
import subprocess
import sys

import pytest

from app.config import Jobs
from app.services.scheduler import scheduling
from app.services.supervise import environment

SOON = Jobs(lease_seconds=1.0, heartbeat_seconds=0.25, sweep_seconds=0.25, cancel_grace_seconds=1.0)


@pytest.fixture
def jobs_settings():
    """Leases of a second, so that a lost worker is missed soon."""
    return SOON


def worker_of(service, queues="cpu,gpu", module="tests.workers.worker", *words):
    """A worker process of this service, which ends with the tests."""
    command = [sys.executable, "-m", module, *words, "--queues", queues, "--parent", str(os.getpid())]
    return subprocess.Popen(command, env=environment(service.settings), start_new_session=True)


@pytest.fixture
def start_worker(service):
    """Starts real workers; those still there at the end are stopped."""
    started = []

    def start(*arguments, **named):
        process = worker_of(service, *arguments, **named)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


@pytest.fixture
def worker(start_worker):
    """One worker, ready or about to be."""
    return start_worker()


@pytest.fixture
def sweeps(service):
    """The scheduler, on a thread of this process."""
    with scheduling(service):
        yield
