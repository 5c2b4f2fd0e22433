"""A service of one's own for a script: started in a directory on a free port, stopped at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.client import ADDRESS_FILE, KEY_FILE

START_SECONDS = 60.0
STOP_SECONDS = 60.0


def start(data_dir: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `palimpsest serve` in a directory and wait until it is ready; its log is `serve.log` there."""
    with (data_dir / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--data-dir", str(data_dir), "--port", "0"],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this script, which stops the service
            env={**os.environ, **(environ or {})},
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended at once:\n{(data_dir / 'serve.log').read_text()}")
        if ready(data_dir):
            return process
        time.sleep(0.05)
    stop(process)
    raise RuntimeError(
        f"the service was not ready within {START_SECONDS:g} seconds; see {data_dir}/serve.log"
    )


def ready(data_dir: Path) -> bool:
    """Does the service of this directory answer?"""
    address = data_dir / ADDRESS_FILE
    if not (address.exists() and (data_dir / KEY_FILE).exists()):
        return False
    try:
        return httpx.get(f"{address.read_text().strip()}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stop(process: subprocess.Popen[bytes]) -> int:
    """Stop the service as Ctrl-C does and answer its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextmanager
def running(data_dir: Path, environ: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A service for the length of a block; answers its directory."""
    process = start(data_dir, environ)
    try:
        yield data_dir
    finally:
        stop(process)
