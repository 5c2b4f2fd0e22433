"""The service as `palimpsest serve` runs it, with one route more: what a trivial one costs on this server.

python -m benchmarks.served serve --data-dir DIR
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from fastapi import FastAPI
from sqlalchemy import create_engine, text

from app import cli, main
from app.api.deps import Reader
from app.client import ADDRESS_FILE, KEY_FILE, Client
from app.service import Service
from tests.stacks import Servers

TRIVIAL = "/v1/trivial"
STACKS = ("embedded", "production")
START_SECONDS = 60.0


@dataclass(frozen=True)
class Served:
    """A running service."""

    stack: str
    api: Client
    address: str  # host:port
    token: str
    process: psutil.Process

    def computing(self) -> psutil.Process:
        """The process that computes updates."""
        for worker in self.process.children():
            if "--queues cpu" in _command(worker):
                for child in worker.children():
                    if "workers.child" in _command(child):
                        return child
        raise RuntimeError("no process computes")

    def anonymous_bytes(self) -> int:
        """Anonymous memory of the API process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel tells no RssAnon")


def _command(process: psutil.Process) -> str:
    return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())


@contextmanager
def served(stack: str) -> Iterator[Served]:
    """The service in a directory of its own; `production` on a PostgreSQL and a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as folder, _environment(stack) as environ:
        data_dir = Path(folder)
        command = [sys.executable, "-m", "benchmarks.served", "serve", "--data-dir", folder, "--port", "0"]
        log = (data_dir / "serve.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environ})
        try:
            api = _ready(process, data_dir)
            token = (data_dir / KEY_FILE).read_text().strip()
            address = (data_dir / ADDRESS_FILE).read_text().strip().removeprefix("http://")
            yield Served(stack, api, address, token, psutil.Process(process.pid))
            api.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            log.close()


def _ready(process: subprocess.Popen[bytes], data_dir: Path) -> Client:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended at once:\n{(data_dir / 'serve.log').read_text()}")
        if (data_dir / ADDRESS_FILE).exists():
            return Client.local(data_dir)
        time.sleep(0.05)
    raise RuntimeError("the service did not start")


@contextmanager
def _environment(stack: str) -> Iterator[dict[str, str]]:
    if stack == "embedded":
        yield {}
        return
    servers = Servers()
    try:
        with servers.database() as url:
            _make_durable(url)
            yield {
                "PALIMPSEST__DATABASE__URL": url,
                "PALIMPSEST__BROKER__URL": servers.broker(),
            }
    finally:
        servers.stop()


def _make_durable(url: str) -> None:
    """The servers of the tests do without fsync; these figures do not."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("ALTER SYSTEM RESET fsync"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


def _with_trivial_route() -> None:
    """Have the service that this process starts answer `TRIVIAL` too, authenticated like its own routes."""
    create = main.create_app

    async def trivial(caller: Reader) -> dict[str, Any]:
        return {"answer": 42}

    def create_app(service: Service) -> FastAPI:
        app = create(service)
        app.add_api_route(TRIVIAL, trivial)
        return app

    main.create_app = create_app


if __name__ == "__main__":
    _with_trivial_route()
    cli.main()
