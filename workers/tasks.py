"""The ring: claim, hand the job over, wait until it is done, claim again until nothing is runnable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy.exc import DBAPIError

from app.service import Service
from app.services import jobs
from app.services.jobs import Cause, ClaimedJob, LeaseLost, Signal
from workers.compute import Compute, End
from workers.context import job_context
from workers.lease import Lease

log = logging.getLogger(__name__)

STEP = 0.1  # seconds between two looks at the process that computes
LOST_GRACE = 2.0  # a job that has just closed itself looks lost for a moment
CLOSE_TRIES = 10


class Desk:
    """One worker's place: it takes one job at a time and watches the process that computes it."""

    def __init__(
        self,
        service: Service,
        queues: Sequence[str],
        owner: str,
        compute: Compute,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.service = service
        self.queues = tuple(queues)
        self.owner = owner
        self.compute = compute
        self.leaving = leaving  # whether the worker was told to stop
        self.heard_at = time.monotonic()  # the last ring, or the last job's end
        self.busy = threading.Event()

    def heard(self) -> None:
        """The broker has brought something."""
        self.heard_at = time.monotonic()

    def work(self) -> None:
        """Take jobs until nothing is runnable. Rung twice, it still runs each once."""
        self.busy.set()
        try:
            while not self.leaving() and (claimed := self._claim()):
                with job_context(claimed):
                    self._run(claimed)
                    self._ring_next(claimed)
        finally:
            self.heard()
            self.busy.clear()
            if not self.leaving():
                self.compute.start()  # the next job finds it warm

    def _claim(self) -> ClaimedJob | None:
        try:
            return jobs.claim(self.service, self.queues, self.owner)
        except DBAPIError:
            log.warning("database away: the sweep rings again", exc_info=True)
            return None

    def _run(self, claimed: ClaimedJob) -> None:
        log.info("job claimed", extra={"kind": claimed.kind})
        with Lease(self.service, claimed) as lease:
            self.compute.begin(claimed)
            end, signal = self._watch(lease)
            if end is not End.DONE or signal is Signal.LOST:
                self._close(claimed, end, signal)

    def _watch(self, lease: Lease) -> tuple[End, Signal]:
        """Wait for the end; pass on the first signal, and end the process where it does not stop in time."""
        times = self.service.settings.jobs
        limit = time.monotonic() + times.limit_seconds
        told = Signal.CONTINUE
        kill_at = float("inf")
        while (end := self.compute.poll(STEP)) is None:
            now = time.monotonic()
            signal = lease.signal
            if signal is Signal.CONTINUE and self.leaving():
                signal = Signal.STOP
            if signal is not told and signal is not Signal.CONTINUE and told is not Signal.LOST:
                told = signal
                self.compute.tell(signal)
                grace = LOST_GRACE if signal is Signal.LOST else times.cancel_grace_seconds
                kill_at = min(kill_at, now + grace)
            if now > min(kill_at, limit):
                self.compute.kill()
                return (End.STOPPED if now > kill_at else End.OVERDUE), told
        return end, told

    def _close(self, claimed: ClaimedJob, end: End, signal: Signal) -> None:
        """Record what the process that computed can no longer say itself."""
        log.warning("job ended by its worker", extra={"end": end.value})
        for attempt in range(CLOSE_TRIES):
            try:
                self._record(claimed, end, signal)
                return
            except LeaseLost:
                return  # it had closed the job before it went, or the sweep took it back
            except DBAPIError:
                time.sleep(min(2.0**attempt * 0.1, 2.0))
        log.error("job left to the sweep")

    def _record(self, claimed: ClaimedJob, end: End, signal: Signal) -> None:
        if signal is Signal.CANCEL:
            jobs.cancelled(self.service, claimed)
        elif signal is Signal.STOP:
            jobs.requeue(self.service, claimed, "worker stopped")
        elif signal is Signal.LOST:
            jobs.fail(self.service, claimed, Cause.DEPENDENCY, "The database was away for a whole lease.")
        elif end is End.OVERDUE:
            jobs.fail(self.service, claimed, Cause.TIMEOUT)
        elif end is End.OUT_OF_MEMORY:
            jobs.fail(self.service, claimed, Cause.OUT_OF_MEMORY)
        else:
            jobs.fail(self.service, claimed, Cause.WORKER_LOST)

    def _ring_next(self, claimed: ClaimedJob) -> None:
        """Wake whoever serves the next job of the lane, where that is not this worker."""
        if claimed.lane is None:
            return
        try:
            head = jobs.lane_head(self.service, claimed.lane)
        except DBAPIError:
            return
        if head and (head[1] not in self.queues or self.leaving()):
            self.service.bell.ring(*head)
