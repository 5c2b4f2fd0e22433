"""One worker: a Celery process with the solo pool, and the process that computes for it."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
import warnings
from collections.abc import Sequence

from celery import signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker import state

from app.config import Settings
from app.service import open_service
from app.services import jobs
from app.services.supervise import environment
from workers.app import worker_app
from workers.compute import COMMAND, Compute
from workers.tasks import Desk

log = logging.getLogger(__name__)

DEAF = 70  # the exit status of a worker that hears no bell
COMPUTING = ("cpu", "gpu")  # queues whose jobs need torch


def run(settings: Settings, queues: Sequence[str], command: Sequence[str] = COMMAND) -> int:
    """Work until SIGTERM; returns the exit status. Belongs on the main thread."""
    service = open_service(settings)
    warm = any(queue in COMPUTING for queue in queues)
    compute = Compute(environment(settings), warm=warm, command=command)
    owner = f"{'-'.join(queues)}@{socket.gethostname()}:{os.getpid()}-{secrets.token_hex(3)}"
    desk = Desk(service, queues, owner, compute, leaving)
    compute.start()
    # Celery warns root of pickled messages, and everybody of a default: here one is refused, the other set
    for known in (SecurityWarning, CPendingDeprecationWarning):
        warnings.simplefilter("ignore", known)
    threading.Thread(target=listen, args=(desk, settings), name="ear", daemon=True).start()
    worker = worker_app(settings, desk).Worker(
        hostname=owner,
        queues=list(queues),
        quiet=True,
        loglevel=logging.WARNING,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )

    def look_first(**_: object) -> None:
        """What was queued while no worker listened needs no bell."""
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
        desk.work()

    signals.worker_ready.connect(look_first, weak=False)
    try:
        worker.start()
    finally:
        signals.worker_ready.disconnect(look_first)
        compute.close()
        service.close()
    return int(worker.exitcode or 0)


def leaving() -> bool:
    """Whether Celery was told to stop."""
    told = (state.should_stop, state.should_terminate)  # an exit status, where it was
    return any(value is not None and value is not False for value in told)


def listen(desk: Desk, settings: Settings) -> None:
    """End the process where jobs wait and no bell is heard: a live process is not yet a working one.

    Whoever started it starts it again, and a worker looks for jobs before it listens. What computes for it is
    looked after too: one that ended while idle is no zombie until the next job.
    """
    silent = settings.jobs.silent_seconds
    since: float | None = None
    while True:
        time.sleep(min(silent / 4, 15))
        if not desk.busy.is_set():
            desk.compute.reap()
        try:
            waits = not desk.busy.is_set() and jobs.waiting(desk.service, desk.queues)
        except Exception:  # the edge: this thread is what notices a deaf worker
            log.exception("jobs not looked for")
            waits = False
        now = time.monotonic()
        if not waits:
            since = None
        elif since is None or desk.heard_at > since:
            since = now
        elif now - since > silent:
            log.critical("jobs wait and no bell was heard", extra={"worker": desk.owner})
            os._exit(DEAF)
