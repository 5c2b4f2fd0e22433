"""A worker that has nothing to do."""

import os
import signal

import psutil
import pytest

from app.config import Jobs
from tests.workers.watching import Nap, computing, until


@pytest.fixture
def stack():
    return "embedded"


@pytest.mark.parametrize("jobs_settings", [Jobs(silent_seconds=4.0)])
def test_leaves_no_zombie_of_a_process_that_was_killed_while_idle(
    service, tenant, tmp_path, jobs_settings, worker
):
    assert Nap(service, tenant, tmp_path).done().state == "succeeded"
    pid = until(lambda: computing(worker))[0]
    os.kill(pid, signal.SIGKILL)

    until(lambda: not psutil.pid_exists(pid))
    assert Nap(service, tenant, tmp_path).done().state == "succeeded"
