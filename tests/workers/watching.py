"""Looking at jobs and processes until something is so, with a deadline and never with a fixed wait."""

from __future__ import annotations

import time

import psutil

from app.tables import Job
from tests.factories import a_job

PATIENCE = 45.0


def until(check, patience=PATIENCE):
    """The first true answer of `check`."""
    deadline = time.monotonic() + patience
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {patience} s in vain"
        time.sleep(0.01)
    return found


def read(service, job):
    with service.db.read() as session:
        return session.get_one(Job, job.id)


def reaches(service, job, *states):
    """The job, once it is in one of these states."""
    return until(lambda: row if (row := read(service, job)).state in states else None)


class Nap:
    """A job of the tests' kind, and what it noted."""

    def __init__(self, service, tenant, folder, *, ring=True, lane=None, queue="cpu", **asked):
        self.notes = folder / f"notes-{len(list(folder.glob('notes-*')))}"
        self.notes.touch()
        self._service = service
        request = {"notes": str(self.notes), **asked}
        self.job = a_job(service, tenant, lane=lane, queue=queue, request=request)
        self.id = self.job.id
        if ring:
            service.bell.ring(self.id, queue)

    def lines(self, what=None):
        """What it noted, as (stage, attempt, process id, halved batch)."""
        found = [line.split() for line in self.notes.read_text().splitlines()]
        return [
            (s, int(attempt), int(pid), halved == "1")
            for s, attempt, pid, halved in found
            if what in (None, s)
        ]

    def noted(self, what):
        """The first line of that stage, once it is there."""
        return until(lambda: self.lines(what))[0]

    def let_go(self):
        """End the stay at a stage."""
        self.notes.with_suffix(".go").touch()

    def done(self):
        return reaches(self._service, self.job, "succeeded", "failed", "cancelled")


def computing(process):
    """The ids of the processes that compute for a worker."""
    return [child.pid for child in psutil.Process(process.pid).children()]


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
