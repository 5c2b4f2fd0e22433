"""One method over a sequence of states: what it costs, and how well it knows all classes so far."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from app.methods.base import Context, Method, Params, Rows, Snapshot, Split
from app.methods.parts.grid import quantise
from app.methods.parts.metrics import accuracy_per_class, forgetting
from app.methods.parts.scoring import scorer_of
from benchmarks.sets import Labels, Set


@dataclass
class Trace:
    """What was measured, state by state."""

    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    predicted: list[Labels] = field(default_factory=list)  # of the test rows of the classes so far
    per_class: list[dict[str, float | None]] = field(default_factory=list)

    @property
    def average(self) -> float:
        return float(np.mean(self.accuracy))

    @property
    def last(self) -> float:
        return self.accuracy[-1]

    @property
    def forgetting(self) -> float:
        now, earlier = self.per_class[-1], self.per_class[:-1]
        known = {name: value for name, value in now.items() if any(name in state for state in earlier)}
        return forgetting(known, earlier) or 0.0

    def judge(self, data: Set, seen: Labels, predicted: Labels) -> None:
        """Add a state: `predicted` are classes of the test rows of the classes `seen`."""
        truth = data.y_test[np.isin(data.y_test, seen)]
        self.predicted.append(predicted)
        self.accuracy.append(float((predicted == truth).mean()))
        names = [key(c) for c in range(data.classes)]
        found = accuracy_per_class(truth, predicted, names)
        self.per_class.append({name: value for name, value in found.items() if value is not None})


def key(number: int) -> str:
    """Label keys whose byte order is that of the numbers."""
    return f"{number:06d}"


def on_grid(x: NDArray[np.generic], version: Snapshot) -> NDArray[np.int16]:
    """Features on the version's grid; int16 rows are there already."""
    if x.dtype == np.int16:
        return x.astype(np.int16, copy=False)
    return quantise(x.astype(np.float64, copy=False), version.grid)[0]


def update(
    before: Snapshot, data: Set, new: Labels, method: Method[Any], params: Params, folder: Path
) -> tuple[Snapshot, float]:
    """One update from features as they came: on the grid, classes mapped, learned, written. Seconds too."""
    x = data.x_train[np.isin(data.y_train, new)]
    labels = data.y_train[np.isin(data.y_train, new)]
    started = time.perf_counter()
    grid_rows = on_grid(x, before)
    names, numbers = np.unique(labels, return_inverse=True)
    rows = Rows(tuple(map(key, names)), numbers, lambda: iter([grid_rows]))
    after = method.run(before, {Split.NEW: rows}, params, Context()).after
    assert after.head is not None
    save_file({"weight": after.head.weight, "bias": after.head.bias}, folder / "head.safetensors")
    sums = {name: [c.sum.tolist(), c.count] for name, c in after.centroids.items()}
    if after.statistics is not None:
        save_arrays(after.statistics.arrays(), folder / "statistics.safetensors")
    (folder / "version.json").write_text(json.dumps({"classes": after.classes, "centroids": sums}))
    return after, time.perf_counter() - started


def predict(version: Snapshot, features: NDArray[np.int16]) -> Labels:
    best = scorer_of(version)(features).argmax(axis=1)
    found: Labels = np.array([int(name) for name in version.classes])[best]
    return found


def run(
    before: Snapshot,
    data: Set,
    arriving: Sequence[Labels],
    method: Method[Any],
    params: Params,
    on_state: Callable[[Snapshot], None] = lambda _: None,
) -> Trace:
    """A whole sequence on features."""
    trace, version = Trace(), before
    test = on_grid(data.x_test, before)
    with tempfile.TemporaryDirectory() as folder:
        for state, new in enumerate(arriving):
            version, seconds = update(version, data, new, method, params, Path(folder))
            seen = np.concatenate(arriving[: state + 1])
            trace.seconds.append(seconds)
            trace.judge(data, seen, predict(version, test[np.isin(data.y_test, seen)]))
            on_state(version)
    return trace
