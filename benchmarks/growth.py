"""What an update costs as the past grows: `python -m benchmarks.growth --data DIR`.

An update reads its new rows and the stored statistics. Here the past is the set's own rows, counted as often
as it takes to come to so many; the update is 1,000 new rows, from the grid to the rounded weights. No old
row is read; but sums of a million rows are longer numbers, and the residual reads a third digit of them.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from app.methods.base import Snapshot
from app.methods.incremental import analytic
from app.methods.parts.statistics import Statistics
from benchmarks.candidates import learn, model, rows_of
from benchmarks.suite import Found, Given, main

PAST = (10_000, 100_000, 1_000_000)
NEW = 1_000
WIDTH = 2_048
REPEATS = 9


def update(given: Given) -> Found:
    """The sizes in turns; medians."""
    data, empty = given.data, model(given.data, WIDTH)
    params = analytic.AnalyticParams()
    first = learn(empty, rows_of(data, np.arange(len(data.y_train)), empty), analytic.METHOD, params)
    versions = {past: repeated(first, past) for past in PAST}
    rows = rows_of(data, np.random.default_rng(0).permutation(len(data.y_train))[:NEW], empty)
    seconds: dict[int, list[float]] = {past: [] for past in PAST}
    for _ in range(REPEATS):
        for past, version in versions.items():
            started = time.perf_counter()
            learn(version, rows, analytic.METHOD, params)
            seconds[past].append(time.perf_counter() - started)
    median = {past: float(np.median(seconds[past])) for past in PAST}
    return Found(
        [
            {
                "past_rows": _statistics(version).rows,
                "new_rows": len(rows.labels),
                "seconds": median[past],
                "over_fewest": median[past] / median[PAST[0]],
            }
            for past, version in versions.items()
        ]
    )


def repeated(version: Snapshot, rows: int) -> Snapshot:
    """The version after all of its rows came again and again, to at least `rows`."""
    once = _statistics(version)
    times = -(-rows // once.rows)
    whole: Statistics | None = None
    part = once
    while times:
        if times % 2:
            whole = part if whole is None else whole.merge(part)
        times //= 2
        if times:
            part = part.merge(part)
    return replace(version, statistics=whole)


def _statistics(version: Snapshot) -> Statistics:
    assert version.statistics is not None
    return version.statistics


if __name__ == "__main__":
    main("growth", __doc__, {"update": update}, sets=("clinc150",))
