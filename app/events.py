"""The events of a job as they arrive: a stream that is taken up again where it broke."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx

from app.wire import Event, Problem, Unreachable, document, pause


def follow(
    http: httpx.Client, job: str, timeout: float | None, attempts: int, sleep: Callable[[float], None]
) -> Iterator[Event]:
    """The job's events until it is done. Raises `Problem`, `Unreachable` after that many failures in a row,
    `TimeoutError` where the job is not done within `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    last = ""
    failures = 0
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        left = 60.0 if deadline is None else max(0.1, min(60.0, deadline - time.monotonic()))
        try:
            with http.stream("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=left) as stream:
                if stream.is_error:
                    stream.read()
                    raise Problem(stream.status_code, document(stream))
                for event in parse(stream.iter_lines()):
                    last, failures = event.sequence or last, 0
                    yield event
                    if event.name == "done":
                        return
        except httpx.TransportError as error:
            failures += 1
            if failures == attempts:
                raise Unreachable(f"the events of {job} broke off: {error}") from error
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"{job} is not done after {timeout:g} seconds")
        sleep(pause(failures or 1, None))


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events from lines; comments (the ping) carry nothing."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
