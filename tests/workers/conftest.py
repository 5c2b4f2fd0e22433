import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from app.config import Jobs
from app.services.supervise import environment
from app.tables import Job

PATIENCE = 30.0


@pytest.fixture
def jobs_settings():
    """Leases of a second, so that a lost worker is missed soon."""
    return Jobs(lease_seconds=1.0, heartbeat_seconds=0.25, sweep_seconds=0.25, cancel_grace_seconds=1.0)


@pytest.fixture
def start_worker(service):
    """Starts real workers; those still there at the end are stopped."""
    started = []

    def start(queues="cpu,gpu"):
        env = {**environment(service.settings), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "tests.workers.worker",
            "--queues",
            queues,
            "--parent",
            str(os.getpid()),
        ]
        process = subprocess.Popen(command, env=env, start_new_session=True)
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


def until(check, patience=PATIENCE):
    """The first true answer of `check`."""
    deadline = time.monotonic() + patience
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {patience} s in vain"
        time.sleep(0.01)
    return found


def read(service, job_id):
    with service.db.read() as session:
        return session.get_one(Job, job_id)


def reaches(service, job, *states, patience=PATIENCE):
    """The job, when it is in one of these states."""

    def check():
        row = read(service, job.id)
        return row if row.state in states else None

    return until(check, patience)


def children(process):
    """The ids of the processes that compute for a worker."""
    return [child.pid for child in psutil.Process(process.pid).children()]


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@contextmanager
def sweeping(service):
    """The scheduler, on a thread."""
    from app.services.scheduler import scheduling

    with scheduling(service):
        yield
