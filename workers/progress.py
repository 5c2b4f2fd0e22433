"""How a running job says where it is, and hears that it is to stop: one call for both."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.service import Service
from app.services import jobs
from app.services.jobs import ClaimedJob, LeaseLost, Signal, Stopped

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two lines in the database


class Superseded(Exception):
    """Rows that the job used were erased or restricted after it chose them: it starts again without."""


class Reporter:
    """Called at every safe point. Raises `Stopped` or `LeaseLost` where the job is to end there.

    The fraction only rises within an attempt; what comes sooner than a second after the last line is not
    written. A database that is away stops nobody here: whether the job is lost, its lease says.
    """

    def __init__(self, service: Service, claimed: ClaimedJob, signal: Callable[[], Signal]) -> None:
        self._service = service
        self._claimed = claimed
        self._signal = signal
        self._started = time.monotonic()
        self._written = float("-inf")
        self._fraction = 0.0
        self._noted = ""  # the last phase that the job's log names

    def __call__(self, fraction: float, phase: str = "", message: str = "") -> None:
        """Say that `fraction` (0 to 1) of the work is done."""
        self._obey(self._signal())
        self._fraction = max(self._fraction, min(fraction, 1.0))
        now = time.monotonic()
        if now - self._written < EVERY:
            return
        self._written = now
        told: dict[str, Any] = {
            "fraction": round(self._fraction, 4),
            "phase": phase,
            "message": message,
            "eta_seconds": self._remaining(now),
        }
        try:
            answer = jobs.progress(self._service, self._claimed, told, note=self._note(phase))
        except DBAPIError:
            log.warning("progress not written", exc_info=True)
            return
        self._noted = phase
        self._obey(answer)

    def _note(self, phase: str) -> str:
        """The line for people where a new phase begins."""
        return f"Attempt {self._claimed.attempt}: {phase}." if phase != self._noted else ""

    def _remaining(self, now: float) -> int | None:
        if not self._fraction:
            return None
        return round((now - self._started) * (1 - self._fraction) / self._fraction)

    def _obey(self, signal: Signal) -> None:
        if signal is Signal.LOST:
            raise LeaseLost
        if signal is not Signal.CONTINUE:
            raise Stopped(signal)
