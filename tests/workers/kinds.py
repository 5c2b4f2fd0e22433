"""A kind of job for tests: it does what its request says, and is known only to the tests' own process.

It goes through the stages of a real one (compute, bytes saved, publication open, published), notes each in a
file, and stays at the one that `hold` names, in the attempt that `hold_attempt` names.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from app.ids import new
from app.services import jobs
from app.services.jobs import LeaseLost
from app.vault import new_key

ERRORS = {"memory": MemoryError(), "full": OSError(errno.ENOSPC, "No space left on device")}


def run(service, claimed, report):
    asked = claimed.request
    stage(claimed, "start")
    if "error" in asked:
        raise ERRORS[asked["error"]]
    compute(claimed, report)
    file_id = new()
    service.vault.seal(file_id, [b"weights"], new_key())
    stage(claimed, "saved")
    try:
        with service.db.begin() as session:
            jobs.guard(session, claimed)
            jobs.finish(session, claimed, {"pid": os.getpid(), "attempt": claimed.attempt})
            stage(claimed, "publishing")
    except LeaseLost:
        note(claimed, "fenced")
        raise
    stage(claimed, "published")
    note(claimed, "end")


def compute(claimed, report):
    """`seconds` of work, in steps that report."""
    until = time.monotonic() + claimed.request.get("seconds", 0)
    report(0.1, "nap")
    while time.monotonic() < until:
        time.sleep(0.02)
        report(0.5, "nap")
    stage(claimed, "computing")


def stage(claimed, name):
    """Note a stage, and stay there if that was asked for, until the file beside the notes says to go on."""
    note(claimed, name)
    asked = claimed.request
    held = asked.get("hold") == name and asked.get("hold_attempt", 1) in (claimed.attempt, "every")
    while held and not Path(asked["notes"]).with_suffix(".go").exists():
        time.sleep(0.02)


def note(claimed, what):
    if "notes" in claimed.request:
        with Path(claimed.request["notes"]).open("a") as file:
            file.write(f"{what} {claimed.attempt} {os.getpid()} {int(claimed.halve_batch)}\n")
