"""The thread that keeps a job's lease while another process computes it."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from app import ids
from app.service import Service
from app.services import jobs
from app.services.jobs import ClaimedJob, Signal

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # how often cancellation is looked for; a renewal looks too
LEAVE_SECONDS = 5.0  # how long the end of a job waits for a look that hangs


class Lease:
    """Renews every `heartbeat_seconds`, from its making on.

    A worker that cannot reach the database stops before its lease ends, even while a call hangs.
    """

    def __init__(self, service: Service, claimed: ClaimedJob) -> None:
        self._service = service
        self._claimed = claimed
        self._times = service.settings.jobs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._said = Signal.CONTINUE
        self._renewed = time.monotonic()

    @property
    def signal(self) -> Signal:
        """The newest word on whether to go on; `LOST` where nothing was renewed for most of a lease."""
        if time.monotonic() - self._renewed > 0.9 * self._times.lease_seconds:
            return Signal.LOST
        return self._said

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(LEAVE_SECONDS)

    def _keep(self) -> None:
        while not self._over.wait(min(LOOK_SECONDS, self._times.heartbeat_seconds / 2)):
            asked = time.monotonic()
            try:
                if asked - self._renewed >= self._times.heartbeat_seconds:
                    self._said = jobs.renew(self._service, self._claimed)
                    self._renewed = asked
                else:
                    self._said = jobs.look(self._service, self._claimed)
            except Exception:  # the edge: whatever it is, the next try may do, and the clock decides
                log.exception("lease not renewed", extra={"job_id": ids.encode("job", self._claimed.id)})
