"""`palimpsest serve` as a process: what it leaves, what it refuses, how it ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys

import psutil
import pytest

from app.client import ADDRESS_FILE, KEY_FILE, Client, Problem
from examples import service

SERVE = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_stops_everything_it_started(tmp_path, number):
    process = service.start(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(number)

    assert process.wait(60) == 0
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not (tmp_path / ADDRESS_FILE).exists()


def test_second_service_in_a_directory_is_refused(data_dir):
    done = subprocess.run([*SERVE, "--data-dir", str(data_dir)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr == f"palimpsest: a service runs already in {data_dir}\n"
    assert service.ready(data_dir)


def test_port_that_is_taken_is_refused(data_dir, tmp_path):
    port = (data_dir / ADDRESS_FILE).read_text().strip().rpartition(":")[2]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", port, "--data-dir", str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr.startswith(f"palimpsest: cannot listen on 127.0.0.1 port {port}")


def test_keeps_its_key_and_directory_to_its_owner(data_dir):
    key = data_dir / KEY_FILE

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.stat().st_uid == os.getuid()


def test_key_is_needed_and_found(data_dir):
    address = (data_dir / ADDRESS_FILE).read_text().strip()

    with Client.local(data_dir) as api:
        assert api.get("version")["version"]
    with (
        Client(address, "key_00000000000000000000000000.none") as stranger,
        pytest.raises(Problem) as refused,
    ):
        stranger.get("models")
    assert refused.value.status == 401


def test_database_of_another_release_is_refused(tmp_path):
    words = [sys.executable, "-m", "app.cli", "db", "upgrade", "--data-dir", str(tmp_path)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    with sqlite3.connect(tmp_path / "palimpsest.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()

    done = subprocess.run([*SERVE, "--data-dir", str(tmp_path)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "it is ahead" in done.stderr
    assert "Traceback" not in done.stderr
