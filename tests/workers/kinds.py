"""Kinds of jobs for tests: they do what their request says, and are known only to the tests' own process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from app.services import jobs


def run(service, claimed, report):
    """Sleep in steps, note the process, fail if asked to, and finish with the process id."""
    asked = claimed.request
    note(asked, f"start {claimed.attempt} {os.getpid()} {claimed.halve_batch}")
    if error := asked.get("error"):
        raise eval(error)
    if asked.get("deaf"):
        while True:
            time.sleep(0.05)
    until = time.monotonic() + asked.get("seconds", 0)
    report(0.0, "nap")
    while time.monotonic() < until:
        time.sleep(0.02)
        report(0.5, "nap")
    with service.db.begin() as session:
        jobs.guard(session, claimed)
        jobs.finish(session, claimed, {"pid": os.getpid(), "attempt": claimed.attempt})
    note(asked, f"end {claimed.attempt} {os.getpid()}")


def note(asked, line):
    if "notes" in asked:
        with Path(asked["notes"]).open("a") as file:
            file.write(line + "\n")
