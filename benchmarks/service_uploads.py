"""How fast a large file is taken in, beside a plain copy of it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import made
from benchmarks.common import Bar, Row, at_least
from benchmarks.served import Served
from benchmarks.service_parts import at_most, row

LEAST_UPLOAD = 0.2  # of the speed of copying the file
MOST_MEMORY = 300.0  # MB of anonymous memory over the idle process
TURNS = 3


def uploads(on: Served, count: int, bars: list[Bar]) -> list[Row]:
    """The upload of a large `.npy`, POST to 201, against copying and fsyncing the file, in turns."""
    with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as folder:
        path = Path(folder) / "x.npy"
        x = np.lib.format.open_memmap(path, "w+", np.float32, (count, 384))
        for start in range(0, count, 50_000):
            x[start : start + 50_000] = made.RANDOM.normal(size=(min(50_000, count - start), 384))
        shares, seconds, growth = [], [], 0
        for turn in range(TURNS):
            x[0, 0] = turn  # other bytes than before
            x.flush()
            copied = _timed(lambda: _copy(path, path.with_suffix(".copy")))
            idle = on.anonymous_bytes()
            with _watching(on) as memory:
                sent = _send(on, path, "application/x-npy")
            shares.append(copied / sent)
            seconds.append(sent)
            growth = max(growth, max(memory) - idle)
        del x
        subjects = _with_subjects(on, path, Path(folder) / "x.npz")
    bars.append(at_least("upload, share of the speed of a copy", statistics.median(shares), LEAST_UPLOAD))
    bars.append(at_most("upload, anonymous memory over idle, MB", growth / 1e6, MOST_MEMORY))
    size = f"{count:,} x 384 float32"
    return [
        row(on, "upload of .npy, POST to 201", statistics.median(seconds), note=size),
        row(on, "upload of .npy, share of the speed of a copy", statistics.median(shares), "ratio", size),
        row(on, "upload of .npy, anonymous memory over idle", growth / 1e6, "MB", size),
        row(on, "upload of .npz with a subject per row", subjects, note=size),
    ]


def _with_subjects(on: Served, source: Path, path: Path) -> float:
    x = np.load(source, mmap_mode="r")
    np.savez(path, x=x, subject=np.array([f"person {i}" for i in range(len(x))]))
    return _send(on, path, "application/x-npz")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())
    target.unlink()


def _send(on: Served, path: Path, media: str) -> float:
    """Seconds from the POST to its 201; the dataset is deleted afterwards."""
    connection = http.client.HTTPConnection(on.address, timeout=600, blocksize=1 << 20)
    with path.open("rb") as body:
        headers = {
            "Authorization": f"Bearer {on.token}",
            "Content-Type": media,
            "Content-Length": str(path.stat().st_size),
            "Idempotency-Key": os.urandom(8).hex(),
        }
        started = time.perf_counter()
        connection.request("POST", "/v1/datasets", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - started
    connection.close()
    assert answer.status == 201, content
    dataset = json.loads(content)["id"]
    on.api.call("DELETE", f"datasets/{dataset}")
    return seconds


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def _watching(on: Served) -> Iterator[list[int]]:
    """Anonymous memory of the API process, every 20 ms."""
    seen, over = [on.anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(on.anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
