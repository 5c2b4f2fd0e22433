"""Every command of the compose file, run as a process on a real PostgreSQL and a real Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from app.client import Client
from examples import service
from tests.test_compose import COMMANDS

LONG = ("api", "scheduler", "worker-cpu", "worker-io", "worker-gpu")
ROWS = """a,b,label,split
1,0,left,train
2,0.1,left,train
3,0,left,eval
0,1,right,train
0.1,2,right,train
0,3,right,eval
"""


def words(name):
    """The command of a service of the compose file, on this Python."""
    return [sys.executable, "-m", "app.cli", *COMMANDS[name][1:]]


@pytest.fixture
def environment(servers, tmp_path):
    """The settings that the compose file makes, for the servers of the tests; the database is empty."""
    with servers.database() as database:
        environ = {
            **os.environ,
            "PALIMPSEST__DATABASE__URL": database,
            "PALIMPSEST__BROKER__URL": servers.broker(),
            "PALIMPSEST__DATA_DIR": str(tmp_path / "data"),
            "PALIMPSEST__FILES__KEYS": str(tmp_path / "keys"),
        }
        down = [sys.executable, "-m", "app.cli", "db", "downgrade", "base", "--yes"]
        subprocess.run(down, env=environ, check=True, capture_output=True, timeout=60)
        yield environ


@contextmanager
def started(name, environ, folder):
    """A service of the compose file as a process that must still run at the end and then stop by SIGTERM."""
    port = ["--port", "0"] if name == "api" else []
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*words(name), *port], env=environ, stdout=log, stderr=log)
    try:
        yield process
        assert process.poll() is None, (folder / f"{name}.log").read_text()
        process.terminate()
        assert process.wait(60) == 0, (folder / f"{name}.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_compose_commands_serve_an_update_and_a_purge(environment, tmp_path):
    refused = subprocess.run(words("worker-cpu"), env=environment, capture_output=True, text=True, timeout=60)
    assert "it is empty: run `palimpsest db upgrade`" in refused.stderr
    subprocess.run(words("migrate"), env=environment, check=True, capture_output=True, timeout=60)

    with ExitStack() as stack:
        for name in LONG:
            stack.enter_context(started(name, environment, tmp_path))
        data = tmp_path / "data"
        deadline = time.monotonic() + 60
        while not service.ready(data):
            assert time.monotonic() < deadline, (tmp_path / "api.log").read_text()
            time.sleep(0.05)
        with Client.local(data) as api:
            dataset = api.send(ROWS.encode(), "text/csv", name="sides")["id"]
            body = {"name": "sides", "task": "classification", "input": {"kind": "vector", "shape": [2]}}
            model = api.post("models", body)["id"]
            update = api.wait(api.update(model, [dataset], "ncm", alias="production")["id"], 120)
            assert update["state"] == "succeeded", update
            answer = api.predict(model, [[5, 0.2], [0.3, 7]], alias="production")
            assert [row["label"] for row in answer["predictions"]] == ["left", "right"]
            purge = api.wait(api.call("DELETE", f"datasets/{dataset}").json()["id"], 120)
            assert purge["state"] == "succeeded", purge
            assert purge["kind"] == "purge"
