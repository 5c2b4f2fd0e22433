"""How soon work starts and ends: a POST to its running job, new data to a better alias."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import psutil
from sklearn.datasets import load_digits

from benchmarks import made
from benchmarks.common import Bar, Row
from benchmarks.load import p
from benchmarks.served import Served
from benchmarks.service_parts import at_most, row

MOST_RUNNING = 0.150  # seconds from POST to running, median
TURNS = 5


def jobs(on: Served, updates: int, bars: list[Bar]) -> list[Row]:
    """From the POST of an update to its job running, in three situations, and from data to a better alias."""
    learned = made.dataset(on.api, *made.rows(classes=4, per_class=50, width=16))
    _update(on, learned)  # imports what an update needs
    measured = [_update(on, learned) for _ in range(updates)]
    running, accepted = [m[0] for m in measured], [m[1] for m in measured]
    waits = [_beside_a_training(on, learned) for _ in range(3)]
    replaced = [_after_a_replacement(on, learned) for _ in range(5)]
    better = [_to_a_better_alias(on) for _ in range(TURNS)]
    bars.append(
        at_most(f"POST update to running, {on.stack}, p50 seconds", statistics.median(running), MOST_RUNNING)
    )
    return [
        row(on, "POST update to running, p50", statistics.median(running), note=f"{updates} updates, idle"),
        row(on, "POST update to running, p99", p(running, 99), note=f"{updates} updates, idle"),
        row(on, "202 of an update, p50", statistics.median(accepted)),
        row(on, "202 of an update, p99", p(accepted, 99)),
        row(
            on,
            "POST update to running while another model trains, p50",
            statistics.median(waited for waited, _ in waits),
            note=f"one process computes: the rest of that training was {_seconds(left for _, left in waits)}",
        ),
        row(
            on,
            "POST update to running after a lost compute process, p50",
            statistics.median(replaced),
            note="the process was killed just before",
        ),
        row(on, "POST update to running after a lost compute process, p99", p(replaced, 99)),
        row(
            on,
            "POST dataset to alias moved, p50",
            statistics.median(better),
            note="digits 5 to 9 by fetril, 900 rows of 64",
        ),
    ]


def _update(on: Served, dataset: str) -> tuple[float, float]:
    """Seconds from the POST of an update on a fresh model to its job running, and to the 202."""
    model = made.model(on.api, input=made.vectors(16))
    before, clock = time.time(), time.perf_counter()
    job = on.api.update(model, [dataset], "ncm")
    accepted = time.perf_counter() - clock
    return _started(_done(on, job["id"])) - before, accepted


def _done(on: Served, job: str) -> Row:
    ended = on.api.wait(job, 120)
    assert ended["state"] == "succeeded", ended["error"]
    return ended


def _started(job: Row) -> float:
    return datetime.fromisoformat(job["started_at"]).timestamp()


def _beside_a_training(on: Served, dataset: str) -> tuple[float, float]:
    """Seconds from POST to running, and what the training before it still took."""
    x, label = made.rows(classes=10, per_class=300, width=64)
    other = made.model(on.api, input=made.vectors(64), network={"name": "mlp"})
    training = on.api.update(other, [made.dataset(on.api, x, label)], "supervised", {"epochs": 15})["id"]
    while on.api.get(f"jobs/{training}")["state"] == "queued":
        time.sleep(0.02)
    time.sleep(1)
    before = time.time()
    waited, _ = _update(on, dataset)
    trained = _done(on, training)
    return waited, datetime.fromisoformat(trained["finished_at"]).timestamp() - before


def _after_a_replacement(on: Served, dataset: str) -> float:
    lost = on.computing()
    lost.kill()
    while lost.is_running() and lost.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    return _update(on, dataset)[0]


def _to_a_better_alias(on: Served) -> float:
    """Seconds from the first byte of new classes to the alias naming the version that knows them."""
    digits = load_digits()
    x, label = digits.data.astype(np.float32), digits.target.astype(str)
    old = digits.target < 5
    x = x + made.RANDOM.normal(scale=1e-3, size=x.shape).astype(np.float32)  # other bytes every time
    model = made.model(on.api, input=made.vectors(64))
    first = on.api.update(model, [made.dataset(on.api, x[old], label[old])], "ncm", alias="production")
    _done(on, first["id"])
    before = time.perf_counter()
    new = made.dataset(on.api, x[~old], label[~old])
    on.api.update(model, [new], "fetril", {"solver": "closed_form"}, alias="production")
    while on.api.get(f"models/{model}/aliases/production")["version"] != 2:
        time.sleep(0.01)
    return time.perf_counter() - before


def _seconds(values: Iterator[float]) -> str:
    return ", ".join(f"{value:.2f} s" for value in values)
