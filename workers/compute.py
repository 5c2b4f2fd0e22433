"""The process that computes: started as a fresh interpreter, fed over pipes, watched, replaced.

Each line is one JSON object. To it: `{"job": …}` and `{"stop": signal}`; from it: `{"replace": …}` when a job
is done.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from app.services.jobs import ClaimedJob, Signal
from workers import oom

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "workers.child")


IDLE_SECONDS = 0.5  # an idle process ends at once, unless it is still importing


class End(StrEnum):
    """How the process came to the end of a job."""

    DONE = "done"  # it closed the job itself
    DIED = "died"
    OUT_OF_MEMORY = "out-of-memory"
    STOPPED = "stopped"  # ended here, after it was told to stop
    OVERDUE = "overdue"  # ended here, over the limit of one attempt


class Compute:
    """One process that computes, kept warm between jobs.

    It lives in a session of its own, so that a Ctrl-C in the terminal does not reach it, and dies with the
    thread that started it: `start` and `begin` belong on the worker's main thread.
    """

    def __init__(
        self, environment: Mapping[str, str], *, warm: bool, command: Sequence[str] = COMMAND
    ) -> None:
        self._environment = dict(environment)
        self._command = [*command, "--parent", str(os.getpid()), *(["--warm"] if warm else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._kills = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Make sure that a process is there; it imports what it needs while it waits for a job."""
        if self._process and self._process.poll() is None:
            return
        self.close()
        self._unread = b""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )

    def reap(self) -> None:
        """Let the system forget an idle process that has ended; the next job gets another. On any thread."""
        process = self._process
        if process and process.returncode is None and process.poll() is not None:
            log.warning("the idle process ended", extra={"pid": process.pid, "status": process.returncode})

    def begin(self, claimed: ClaimedJob) -> None:
        """Give the process a job."""
        self.start()
        self._kills = oom.kills()
        self._say({"job": claimed.dump()})

    def tell(self, why: Signal) -> None:
        """Ask the process to stop at its next safe point."""
        self._say({"stop": why.value})

    def poll(self, seconds: float) -> End | None:
        """Wait that long for the end of the job; `None` while it computes."""
        assert self._process
        line = self._line(seconds)
        if line is None:
            return None
        if line:
            if json.loads(line)["replace"]:
                self.kill()
            return End.DONE
        self._process.wait()
        status = self._process.returncode
        log.error("the process that computes died", extra={"pid": self.pid, "status": status})
        out_of_memory = status == -signal.SIGKILL and oom.kills() > self._kills
        self.close()
        return End.OUT_OF_MEMORY if out_of_memory else End.DIED

    def kill(self) -> None:
        """End the process, by its id."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self.close()

    def close(self) -> None:
        """Let the process go: it ends when its input does."""
        if self._process:
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            try:
                self._process.wait(timeout=IDLE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._process
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it has died, which `poll` finds
            log.warning("the process that computes does not listen", extra={"pid": self.pid})

    def _line(self, seconds: float) -> bytes | None:
        """One line; `None` where there is none yet, empty at the end of the stream."""
        assert self._process
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if b"\n" not in self._unread and selector.select(seconds):
                part = os.read(self._process.stdout.fileno(), 65_536)
                if not part:
                    return b""
                self._unread += part
        if b"\n" not in self._unread:
            return None
        line, _, self._unread = self._unread.partition(b"\n")
        return line
