"""The main of the process that computes: reads jobs from its input until that ends."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from app import config, logs
from app.service import open_service
from app.services.jobs import ClaimedJob, Signal
from workers import runner
from workers.parent import die_with

log = logging.getLogger(__name__)

WARM = ("app.methods", *runner.KINDS.values())


class Inbox:
    """What the parent says: jobs wait their turn, a stop is for the job that runs."""

    def __init__(self, stream: BinaryIO) -> None:
        self.jobs: queue.Queue[ClaimedJob | None] = queue.Queue()
        self.signal = Signal.CONTINUE
        threading.Thread(target=self._read, args=(stream,), name="inbox", daemon=True).start()

    def _read(self, stream: BinaryIO) -> None:
        for line in stream:
            said: Mapping[str, Any] = json.loads(line)
            if "job" in said:
                self.signal = Signal.CONTINUE
                self.jobs.put(ClaimedJob.parse(said["job"]))
            else:
                self.signal = Signal(said["stop"])
        self.jobs.put(None)


def main(kinds: Mapping[str, str] = runner.KINDS, warm: Sequence[str] = WARM) -> None:
    """Run one job after another; `kinds` names the module of each kind, `warm` what to import ahead."""
    arguments = _arguments()
    die_with(arguments.parent, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the worker's to pass on
    answers = _own_output()
    logs.configure()
    inbox = Inbox(os.fdopen(os.dup(0), "rb"))
    service = open_service(config.load().settings)
    if arguments.warm:
        _import(warm)
    try:
        while (claimed := inbox.jobs.get()) is not None:
            runner.run(service, claimed, lambda: inbox.signal, kinds)
            answers.write(json.dumps({"replace": _used_gpu()}).encode() + b"\n")
            answers.flush()
    finally:
        service.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="palimpsest compute process")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--warm", action="store_true")
    return parser.parse_args()


def _import(modules: Sequence[str]) -> None:
    """Import ahead of the first job; what cannot be imported is the error of the job that needs it."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            log.exception("not imported", extra={"imported": name})


def _own_output() -> BinaryIO:
    """The pipe to the parent, out of reach of libraries that print: what they print is a log."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _used_gpu() -> bool:
    """Whether this process owns a CUDA context now, whose memory only its end gives back."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


if __name__ == "__main__":
    main()
