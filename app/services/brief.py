"""Answers that are kept for a moment, so that whoever asks in a loop costs one look a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from app.service import Service

T = TypeVar("T")
SECONDS = 1.0


class Brief(Generic[T]):
    """The last answer about each service's database; callers at the same moment share one look."""

    def __init__(self, look: Callable[[Service], T]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._kept: WeakKeyDictionary[object, tuple[float, T]] = WeakKeyDictionary()

    def __call__(self, service: Service) -> T:
        """The answer, at most `SECONDS` old."""
        with self._lock:
            at, found = self._kept.get(service.db, (float("-inf"), None))
            if time.monotonic() - at < SECONDS:
                return found  # type: ignore[return-value]
            fresh = self._look(service)
            self._kept[service.db] = time.monotonic(), fresh
            return fresh
