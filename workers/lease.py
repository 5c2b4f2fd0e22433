"""The thread that keeps a job's lease while another process computes it."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from sqlalchemy.exc import DBAPIError

from app.service import Service
from app.services import jobs
from app.services.jobs import ClaimedJob, Signal

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # how often cancellation is looked for; a renewal looks too


class Lease:
    """Renews every `heartbeat_seconds`; `signal` is the newest word on whether to go on.

    A worker that cannot reach the database stops before its lease ends: `signal` is then `LOST`.
    """

    def __init__(self, service: Service, claimed: ClaimedJob) -> None:
        self._service = service
        self._claimed = claimed
        self._times = service.settings.jobs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.signal = Signal.CONTINUE

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._over.wait(min(LOOK_SECONDS, self._times.heartbeat_seconds / 2)):
            asked = time.monotonic()
            try:
                if asked - renewed >= self._times.heartbeat_seconds:
                    self.signal = jobs.renew(self._service, self._claimed)
                    renewed = asked
                else:
                    self.signal = jobs.look(self._service, self._claimed)
            except DBAPIError as error:
                log.warning("lease not renewed", extra={"job_id": self._claimed.id.hex, "error": str(error)})
                if time.monotonic() - renewed > 0.9 * self._times.lease_seconds:
                    self.signal = Signal.LOST
