"""How many and how responsive: reads and predictions, alone and beside large batches."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

from benchmarks import made
from benchmarks.common import Bar, Row, at_least
from benchmarks.load import hammering, latencies, p, rate, request
from benchmarks.served import TRIVIAL, Served
from benchmarks.service_parts import at_most, row

LEAST_READS = 0.25  # of the trivial route
MOST_BUSY = 10.0  # times the idle p99
TURNS = 5
BUSY_TURNS = 3


def reads(on: Served, bars: list[Bar]) -> list[Row]:
    """Answers per second as shares of those of a trivial route, in turns."""
    model = made.imported(on.api, width=512, classes=100)
    body = json.dumps({"inputs": made.RANDOM.normal(size=(1, 512)).tolist(), "version": 1}).encode()
    asked = {
        "trivial": request("GET", TRIVIAL, on.token),
        "version": request("GET", f"/v1/models/{model}/versions/1", on.token),
        "prediction": request("POST", f"/v1/models/{model}/predict", on.token, body),
    }
    for raw in asked.values():
        rate(on.address, raw, 1)
    turns = [{name: rate(on.address, raw, 3) for name, raw in asked.items()} for _ in range(TURNS)]
    ratios = {
        name: statistics.median(turn[name] / turn["trivial"] for turn in turns)
        for name in ("version", "prediction")
    }
    alone = latencies(on.address, asked["prediction"], 2_000)
    bars.append(at_least("reads of a version, share of the trivial route", ratios["version"], LEAST_READS))
    return [
        *(
            row(on, f"{name}, 8 clients", statistics.median(turn[name] for turn in turns), "per second")
            for name in asked
        ),
        row(on, "reads of a version, share of the trivial route", ratios["version"], "ratio"),
        row(
            on,
            "predictions, share of the trivial route",
            ratios["prediction"],
            "ratio",
            "512 features, 100 classes",
        ),
        row(on, "prediction, 1 client, p50", p(alone, 50)),
        row(on, "prediction, 1 client, p99", p(alone, 99)),
    ]


def busy(on: Served, requests: int, bars: list[Bar]) -> list[Row]:
    """p99 of two small requests while another client sends batches of 1,000 images, against idle."""
    model, pictures = made.imported(on.api, width=512, classes=100), made.images(on.api)
    images = made.RANDOM.integers(0, 256, (1000, 28, 28), dtype=np.uint8)
    body = json.dumps({"inputs": made.RANDOM.normal(size=(1, 512)).tolist(), "version": 1}).encode()
    small = {
        "/livez": request("GET", "/livez", on.token),
        "prediction": request("POST", f"/v1/models/{model}/predict", on.token, body),
    }
    path = f"/v1/models/{pictures}/predict"
    batches = {
        "npy": request("POST", f"{path}?version=1", on.token, made.npy(images), "application/x-npy"),
        "JSON": request(
            "POST", path, on.token, json.dumps({"inputs": images.tolist(), "version": 1}).encode()
        ),
    }
    rows = []
    for format, batch in batches.items():
        turns = [_turn(on, small, batch, requests) for _ in range(BUSY_TURNS)]
        speed = statistics.median(turn["images"] for turn in turns)
        note = f"batches of 1,000 images as {format}: {speed:.0f} images per second"
        for name in small:
            idle = statistics.median(turn[name, "idle"] for turn in turns)
            beside = statistics.median(turn[name, "beside"] for turn in turns)
            rows.append(row(on, f"{name}, p99 idle", idle))
            rows.append(row(on, f"{name}, p99 beside batches", beside, note=note))
            title = f"{name}, p99 beside batches as {format}, times idle"
            bars.append(at_most(title, beside / idle, MOST_BUSY))
    return rows


def _turn(on: Served, small: dict[str, bytes], batch: bytes, requests: int) -> dict[Any, float]:
    """p99 of each small request, idle and beside another client's batches."""
    found: dict[Any, float] = {}
    for name, raw in small.items():
        found[name, "idle"] = p(latencies(on.address, raw, requests), 99)
    with hammering(on.address, batch) as other:
        for name, raw in small.items():
            found[name, "beside"] = p(latencies(on.address, raw, requests), 99)
    return {**found, "images": 1000 * other["answered"] / other["seconds"]}
