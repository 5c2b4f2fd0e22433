"""Keeps processes alive: starts the workers of `serve`, restarts one that exits, leaves none behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app import config
from app.config import PREFIX, Settings

log = logging.getLogger(__name__)

STEP = 0.1  # seconds between two looks
LONGEST_PAUSE = 30.0  # seconds before a process that keeps exiting is started again
SETTLED = 60.0  # a process that lived that long starts again at once
# Threads of a numeric library that wait for each other sleep: spinning, they take the cores from whoever they
# wait for, and a training beside other work was eight times slower.
THREADS_SLEEP = ("OMP_WAIT_POLICY", "PASSIVE")
SPARE = 5.0  # seconds that a worker has on top of the grace of its job


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which a child process reads exactly these settings."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name, path in config.names().items():
        value: object = settings
        for part in path:
            value = getattr(value, part)
        if value is not None:
            found[name] = str(value)
    found[f"{PREFIX}DATA_DIR"] = str(settings.data_dir.absolute())
    found.setdefault(*THREADS_SLEEP)
    return found


def worker_command(queues: Sequence[str]) -> list[str]:
    """The command of a worker that ends with this process."""
    return [sys.executable, "-m", "workers", "--queues", ",".join(queues), "--parent", str(os.getpid())]


@contextmanager
def supervise(settings: Settings) -> Iterator[Supervisor]:
    """The workers of the embedded service: one that computes, one for purges."""
    commands = {"compute": worker_command(("cpu", "gpu")), "io": worker_command(("io",))}
    supervisor = Supervisor(commands, environment(settings), settings.jobs.cancel_grace_seconds + SPARE)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


@dataclass
class Child:
    """One process that is to be there."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    failures: int = 0


class Supervisor:
    """Starts each command, and again when it exits, sooner after a long life than after a short one.

    All of it happens on one thread, which outlives its children: they are tied to it by a death signal.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], env: Mapping[str, str], grace: float) -> None:
        self.children = [Child(name, command) for name, command in commands.items()]
        self._env = dict(env)
        self._grace = grace
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop every process: a signal first, and after the grace for good. Returns when none is left."""
        self._over.set()
        self._thread.join()

    def pids(self) -> dict[str, int]:
        """The processes that are there."""
        return {c.name: c.process.pid for c in self.children if c.process and c.process.poll() is None}

    def _run(self) -> None:
        try:
            while not self._over.wait(STEP):
                for child in self.children:
                    self._tend(child)
        finally:
            self._end_all()

    def _tend(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            if (status := child.process.poll()) is None:
                return
            child.failures = 0 if now - child.started > SETTLED else child.failures + 1
            child.due = now + _pause(child.failures)
            child.process = None
            log.warning("worker exited", extra={"worker": child.name, "status": status})
        if now >= child.due:
            child.started = now
            try:
                child.process = subprocess.Popen(
                    child.command, env=self._env, stdin=subprocess.DEVNULL, start_new_session=True
                )
            except OSError:  # no memory or no process id to be had: the others go on, and this one later
                child.failures += 1
                child.due = now + _pause(child.failures)
                log.exception("worker not started", extra={"worker": child.name})

    def _end_all(self) -> None:
        alive = [child.process for child in self.children if child.process]
        for process in alive:
            process.terminate()
        until = time.monotonic() + self._grace
        for process in alive:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pause(failures: int) -> float:
    """Seconds before a process is started again that has failed so often in a row."""
    return min(0.25 * 2.0**failures, LONGEST_PAUSE) if failures else 0.0
