"""An upload of any size is taken in a fixed amount of anonymous memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.api.conftest import bearer
from tests.api.sending import MEDIA

ROWS, WIDTH = 140_000, 384  # 215 MB
MOST = 150  # MB over the idle process, less than the file: nothing holds all of it


def anonymous(pid: int) -> float:
    """RssAnon in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


@pytest.fixture
def served(tmp_path):
    """A client of the app in a process of its own, and that process."""
    at = str(tmp_path / "socket")
    command = [sys.executable, "-m", "tests.api.served", str(tmp_path / "data"), at]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not _listens(at):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    transport = httpx.HTTPTransport(uds=at)
    with httpx.Client(transport=transport, base_url="http://served", timeout=240) as client:
        assert client.get("/livez").is_success
        client.headers.update(bearer((tmp_path / "data" / "admin.key").read_text().strip()))
        yield client, process
    process.terminate()
    process.wait()


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        return attempt.connect_ex(path) == 0


def write(path: Path, format: str) -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)
    if format == "npy":
        np.save(path, x)
    else:
        np.savez(path, x=x, label=np.arange(ROWS) % 50)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["npy", "npz"])
def test_a_large_upload_takes_little_memory(served, tmp_path, format):
    client, process = served
    path = tmp_path / f"rows.{format}"
    write(path, format)
    idle, peak, done = anonymous(process.pid), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous(process.pid))

    watching = threading.Thread(target=watch)
    watching.start()
    with path.open("rb") as file:
        headers = {"Content-Type": MEDIA[format], "Idempotency-Key": "once"}
        answer = client.post("/v1/datasets", content=file, headers=headers)
    done.set()
    watching.join()

    assert (answer.status_code, answer.json()["rows"]) == (201, ROWS)
    assert path.stat().st_size > MOST * 1e6
    assert peak[0] - idle < MOST
