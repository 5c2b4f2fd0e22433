"""One moment at which an attempt is over, whatever its connection is at.

Time limits of a connection are of one read each: who sends a byte now and then would hold it for ever.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

import httpcore


class Deadline:
    """Seconds that are left, of those that there were when this was made."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left(self, timeout: float | None, over: Callable[[str], Exception]) -> float:
        """Seconds that one step may take: `timeout`, but no more than are left; raises `over`."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise over("the time of the attempt is over")
        return left if timeout is None else min(left, timeout)


class Timed(httpcore.NetworkStream):
    """A connection that ends at a deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        return Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
