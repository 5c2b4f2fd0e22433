"""A client that costs little: raw HTTP/1.1 over kept connections, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np


def request(
    method: str, path: str, token: str, body: bytes = b"", content_type: str = "application/json"
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {token}"]
    if body:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def rate(address: str, raw: bytes, seconds: float, connections: int = 8) -> float:
    """Answers per second that so many clients get, each asking again as soon as it is answered."""
    times = asyncio.run(_many(address, raw, seconds, connections))
    return len(times) / seconds


def latencies(address: str, raw: bytes, count: int) -> list[float]:
    """Seconds of so many requests one after the other."""
    return asyncio.run(_count(address, raw, count))


def p(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))


@contextmanager
def hammering(address: str, raw: bytes) -> Iterator[dict[str, Any]]:
    """Another client, in a process of its own, that sends one request again and again meanwhile.

    The dictionary holds `answered` at the end.
    """
    context = multiprocessing.get_context("spawn")
    over, results = context.Event(), context.SimpleQueue()
    client = context.Process(target=_hammer, args=(address, raw, over, results))
    client.start()
    told: dict[str, Any] = {}
    assert results.get() == "first"
    try:
        yield told
    finally:
        over.set()
        told["answered"], told["seconds"] = results.get()
        client.join()


def _hammer(address: str, raw: bytes, over: Event, results: Any) -> None:
    async def run() -> tuple[int, float]:
        reader, writer = await _connect(address)
        await _ask(reader, writer, raw)
        results.put("first")
        started, answered = time.perf_counter(), 0
        while not over.is_set():
            await _ask(reader, writer, raw)
            answered += 1
        writer.close()
        return answered, time.perf_counter() - started

    results.put(asyncio.run(run()))


async def _many(address: str, raw: bytes, seconds: float, connections: int) -> list[float]:
    until = time.perf_counter() + seconds
    clients = await asyncio.gather(*(_until(address, raw, until) for _ in range(connections)))
    return [taken for times in clients for taken in times]


async def _until(address: str, raw: bytes, until: float) -> list[float]:
    reader, writer = await _connect(address)
    times = []
    while (before := time.perf_counter()) < until:
        await _ask(reader, writer, raw)
        times.append(time.perf_counter() - before)
    writer.close()
    return times


async def _count(address: str, raw: bytes, count: int) -> list[float]:
    reader, writer = await _connect(address)
    times = []
    for _ in range(count):
        before = time.perf_counter()
        await _ask(reader, writer, raw)
        times.append(time.perf_counter() - before)
    writer.close()
    return times


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), limit=1 << 20)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> bytes:
    writer.write(raw)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    body = await reader.readexactly(int(lowered[start : lowered.index(b"\r\n", start)]))
    if not head.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(f"the service refused: {json.loads(body)}")
    return body
