"""A person forgotten over HTTP, POST to certificate: `python -m benchmarks.forget_service --data DIR`.

Ten rows are one person. Three datasets are learned one after the other by `analytic` at width 2,048, and the
three versions are kept; the person is in all of them. The request is approved as it comes; the clock stops
when it is completed: heads replaced, stored rows and old versions destroyed, certificate signed. Then 1,000
persons ask at once, each with a request of their own. With `--rows 1000000` rows are the set's, drawn again
with noise; only the persons who are forgotten are named in it then.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import sets
from benchmarks.common import Bar, Row, show, show_bars, write
from benchmarks.served import STACKS, Served, served

WIDTH = 2_048
PERSON = 10  # rows of one person
SINGLES, AT_ONCE = 15, 1_000
MOST = {15_000: 3.0, 1_000_000: 6.0}  # seconds, median
MOST_OVER_ONE = 20.0  # 1,000 persons at once over one
NOISE = 0.02
DONE = ("completed", "completed-with-exceptions", "failed", "rejected", "cancelled")
CLIENTS = 8


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forget_service", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds clinc150")
    parser.add_argument("--rows", type=int, action="append", help="rows learned; may be repeated")
    parser.add_argument("--stack", choices=STACKS, action="append", help="default: embedded")
    given = parser.parse_args(argv)
    data = sets.load(given.data, "clinc150")
    rows: list[Row] = []
    bars: list[Bar] = []
    for stack in given.stack or STACKS[:1]:
        for size in given.rows or tuple(MOST):
            os.environ["PALIMPSEST__LIMITS__IDLE_SECONDS"] = "600"
            with served(stack) as running:
                rows += _measure(running, data, size, bars)
    show("Forgetting over HTTP", rows, {"measured": "", "value": ".4g", "unit": "", "note": ""})
    show_bars(bars)
    write("forget_service", {"rows": given.rows or list(MOST)}, rows, bars)


def _measure(on: Served, data: sets.Set, size: int, bars: list[Bar]) -> list[Row]:
    persons = SINGLES + AT_ONCE if size == 15_000 else SINGLES
    model = _taught(on, data, size, persons)
    singles = [_forget(on, f"person {i}") for i in range(SINGLES)]
    one = float(np.median(singles))
    name = f"{on.stack}, {size:,} rows"
    bars.append(Bar(f"{name}: one person, p50 seconds", one, MOST[size], one <= MOST[size]))
    lines = [
        _row(f"{name}: one person, POST to completed, p50", one, "s", f"{SINGLES} persons of {PERSON} rows"),
        _row(f"{name}: one person, POST to completed, longest", max(singles), "s"),
    ]
    if persons > SINGLES:
        together = _at_once(on, [f"person {i}" for i in range(SINGLES, persons)])
        over = together / one
        bars.append(Bar(f"{name}: 1,000 persons over one", over, MOST_OVER_ONE, over <= MOST_OVER_ONE))
        lines.append(_row(f"{name}: {AT_ONCE:,} persons at once", together, "s", f"{over:.1f} times one"))
    versions = [v for v in on.api.items(f"models/{model}/versions") if v["state"] == "ready"]
    lines.append(_row(f"{name}: versions kept", len(versions), ""))
    return lines


def _taught(on: Served, data: sets.Set, size: int, persons: int) -> str:
    """A model with three versions; every person's rows are in the first dataset."""
    shape = [data.x_train.shape[1]]
    body = {
        "name": f"intents of {size} rows",
        "task": "classification",
        "input": {"kind": "vector", "shape": shape, "grid": "normalised"},
        "network": {"name": "identity"},
        "expansion": {"width": WIDTH, "seed": 0},
    }
    model = str(on.api.post("models", body)["id"])
    for part, file in enumerate(_files(data, size, persons)):
        dataset = on.api.send(file, name=f"part {part}")
        job = on.api.wait(
            on.api.update(model, [dataset["id"]], "analytic", on_conflict="extend")["id"], 3_600
        )
        assert job["state"] == "succeeded", job["error"]
    on.api.call(
        "PUT",
        f"models/{model}/aliases/production",
        body={"version": 3, "reason": "benchmark"},
        headers={"If-None-Match": "*"},
    )
    return model


def _files(data: sets.Set, size: int, persons: int) -> Iterator[bytes]:
    """Three .npz: the first holds everybody, the last two a tenth of the rows each."""
    draw = np.random.default_rng(size)
    source = draw.permutation(len(data.y_train)) if size <= len(data.y_train) else None
    if source is None:
        source = draw.integers(0, len(data.y_train), size)
    for part, chosen in enumerate(np.split(source[:size], [size * 8 // 10, size * 9 // 10])):
        x = data.x_train[chosen].astype(np.float32)
        if size > len(data.y_train):
            x += draw.normal(0, NOISE, x.shape).astype(np.float32)
        arrays: dict[str, NDArray[np.generic]] = {"x": x, "label": data.y_train[chosen].astype(str)}
        if part == 0:
            who = np.array([f"person {i}" for i in range(persons)])
            arrays["subject"] = np.repeat(who, PERSON)[: len(chosen)]
            arrays["subject_row"] = np.arange(len(arrays["subject"]))
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        yield file.getvalue()


def _forget(on: Served, person: str) -> float:
    started = time.perf_counter()
    request = _post(on, person)
    _wait(on, request)
    return time.perf_counter() - started


def _at_once(on: Served, persons: Sequence[str]) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        requests = list(pool.map(lambda person: _post(on, person), persons))
    for request in requests:
        _wait(on, request)
    return time.perf_counter() - started


def _post(on: Served, person: str) -> str:
    return str(on.api.post("forget-requests", {"scope": "subject", "targets": [person]})["id"])


def _wait(on: Served, request: str) -> None:
    while (found := on.api.get(f"forget-requests/{request}"))["state"] not in DONE:
        time.sleep(0.02)
    assert found["state"] == "completed", found
    assert on.api.get(f"forget-requests/{request}/certificate")


def _row(measured: str, value: float, unit: str, note: str = "") -> Row:
    return {"measured": measured, "value": value, "unit": unit, "note": note}


if __name__ == "__main__":
    main()
