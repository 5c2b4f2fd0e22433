"""Forgetting exactly, against learning again: `python -m benchmarks.exact --data DIR`.

A head that learned from so many rows forgets 1, 10 or 100 of them, or a class: its statistics are read, the
rows' own subtracted, the head solved anew, both written. Beyond the set's own rows, rows are its embeddings
drawn again with noise. In the same run, from and to the same encrypted files:

- *retrain*: the product's own fastest way to learn from the rows that remain, and its digests, which have to
  be the same;
- *by upload*: what one would write in a day: float64 sums kept for each upload of 50,000 rows, those of the
  touched upload computed anew, all added up, a plain solve;
- *floor*: read the sums of that width, factor, refine and write, with nothing else around it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from app.methods.base import Context, Rows, Snapshot
from app.methods.incremental import analytic
from app.methods.parts.expansion import expand, longest_row
from app.methods.parts.grid import step_bits
from app.methods.parts.model_settings import FixedRidge
from app.methods.parts.statistics import Statistics
from app.methods.unlearning import exact
from benchmarks.candidates import digests, learn, model, rows_of
from benchmarks.common import Bar, Row, at_least
from benchmarks.memory import in_child
from benchmarks.sequence import on_grid
from benchmarks.sets import Labels, Set
from benchmarks.stored import SHARD, Grid, Kept, Store
from benchmarks.suite import Found, Given, main

SIZES = (10_000, 100_000, 1_000_000)
WIDTHS = (384, 2_048)
UPLOAD = 50_000  # rows of one upload of the peer
COUNTS = (1, 10, 100)  # rows that are forgotten, all of one upload
REPEATS = 7
NOISE = 0.02  # standard deviation added to each value of a row of length one
MODELS, VERSIONS = 5, 20
PARAMS = analytic.AnalyticParams()


def forget(given: Given) -> Found:
    """Every size and width; medians of the forget and the floor, one run of each way to learn again."""
    found = Found()
    for width in WIDTHS:
        medians = {}
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                lines, bars = _size(given.data, size, width, Path(folder))
            found.rows += lines
            found.bars += bars
            medians[size] = float(lines[0]["forget_seconds"])
        flat = medians[SIZES[-1]] / medians[SIZES[0]]
        found.bars.append(Bar(f"width {width:,}: 1e6 rows over 1e4", flat, 1.2, flat <= 1.2))
    return found


def _size(data: Set, size: int, width: int, folder: Path) -> tuple[list[Row], list[Bar]]:
    empty = model(data, None if width == data.x_train.shape[1] else width)
    store = made(data, size, empty, folder)
    everything = learn(empty, store.without(np.empty(0, np.int64)), analytic.METHOD, PARAMS)
    kept = Kept.write(store.vault, everything)
    peer = ByUpload.of(store, empty, folder)
    floor = _median(lambda: _bare(everything, folder))
    lines, bars = [], []
    for name, gone in _requests(store).items():
        seconds = _median(lambda gone=gone: _forget(kept, store.rows(gone)))  # type: ignore[misc]
        forgotten = _forget(kept, store.rows(gone)).read()
        started = time.perf_counter()
        retrained = learn(empty, store.without(gone), analytic.METHOD, PARAMS)
        Kept.write(store.vault, retrained)
        retrain = time.perf_counter() - started
        started = time.perf_counter()
        peer.forget(gone)
        by_upload = time.perf_counter() - started
        equal = digests(forgotten) == digests(retrained)
        lines.append(
            {
                "width": width,
                "rows": size,
                "forgotten": name,
                "forget_seconds": seconds,
                "retrain_over_forget": retrain / seconds,
                "by_upload_over_forget": by_upload / seconds,
                "forget_over_floor": seconds / floor,
                "retrain_seconds": retrain,
                "by_upload_seconds": by_upload,
                "floor_seconds": floor,
                "same_digests": "yes" if equal else "NO",
            }
        )
        cell = f"width {width:,}, {size:,} rows, {name} forgotten"
        bars.append(at_least(f"{cell}: same digests as a retrain", float(equal), 1.0))
    if (size, width) == (SIZES[-1], WIDTHS[-1]):
        bars += _speed(lines[0])
    return lines, bars


def _speed(line: Row) -> list[Bar]:
    over = float(line["forget_over_floor"])
    return [
        at_least("one row of 1e6: retrain over forget", float(line["retrain_over_forget"]), 60.0),
        at_least("one row of 1e6: by upload over forget", float(line["by_upload_over_forget"]), 3.0),
        Bar("one row of 1e6: forget over its floor", over, 2.0, over <= 2.0),
    ]


def made(data: Set, size: int, empty: Snapshot, folder: Path) -> Store:
    """A store of `size` rows: the set's own, drawn again with noise, on the model's grid."""
    source = np.random.default_rng(size).integers(0, len(data.y_train), size)
    labels = data.y_train[source]

    def blocks() -> Iterator[Grid]:
        noise = np.random.default_rng(1)
        for first in range(0, size, SHARD):
            x = data.x_train[source[first : first + SHARD]].astype(np.float32)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            yield on_grid(x + noise.normal(0, NOISE, x.shape).astype(np.float32), empty)

    return Store.fill(folder, data.x_train.shape[1], labels, blocks())


def _requests(store: Store) -> dict[str, Labels]:
    """Positions by name: some rows of one upload, and a class wherever its rows are."""
    draw = np.random.default_rng(2)
    last = max(0, len(store.labels) - UPLOAD)
    found = {
        f"{n} row" + "s" * (n > 1): np.sort(draw.choice(min(UPLOAD, len(store.labels)), n, False)) + last
        for n in COUNTS
    }
    return {**found, "one class": np.flatnonzero(store.labels == store.labels[0])}


def _forget(kept: Kept, gone: Rows) -> Kept:
    """From file to file."""
    after = exact.forget(kept.read(), gone, analytic.METHOD, PARAMS, Context()).after
    return Kept.write(kept.vault, after)


def _bare(version: Snapshot, folder: Path) -> None:
    """Read sums of this width, factor, refine, write."""
    statistics, path = version.statistics, folder / "floor"
    assert statistics is not None
    assert isinstance(version.ridge, FixedRidge)
    if not path.exists():
        statistics.gram.tofile(path)
    read = Statistics(
        statistics.classes,
        statistics.counts,
        statistics.sums,
        statistics.squares,
        np.fromfile(path, np.int64),
        statistics.expansion,
    )
    analytic.head_of(read, version.ridge, step_bits(version.grid))
    with (folder / "written").open("wb") as file:
        read.gram.tofile(file)
        os.fsync(file.fileno())


class ByUpload:
    """Float64 sums per upload of 50,000 rows: forgetting computes the touched ones anew and adds all up."""

    def __init__(self, store: Store, empty: Snapshot, folder: Path) -> None:
        self.store, self.empty, self.folder = store, empty, folder
        self.classes = int(store.labels.max()) + 1
        self.uploads = -(-len(store.labels) // UPLOAD)

    @classmethod
    def of(cls, store: Store, empty: Snapshot, folder: Path) -> ByUpload:
        """The sums of every upload, each in a file."""
        peer = cls(store, empty, folder)
        for number in range(peer.uploads):
            np.save(folder / f"upload-{number}.npy", peer._sums(number, np.empty(0, np.int64)))
        return peer

    def forget(self, gone: Labels) -> None:
        touched = set((gone // UPLOAD).tolist())
        for number in touched:
            np.save(self.folder / f"upload-{number}.new.npy", self._sums(number, gone))
        whole = 0.0
        for number in range(self.uploads):
            whole = whole + np.load(self.folder / f"upload-{number}{'.new' * (number in touched)}.npy")
        np.save(self.folder / "weights.npy", self._solve(np.asarray(whole)))

    def _sums(self, number: int, gone: Labels) -> np.ndarray:
        """(1 + width + classes, 1 + width): of a column of ones, the features and the one-hot labels."""
        first, end = number * UPLOAD, min((number + 1) * UPLOAD, len(self.store.labels))
        positions = np.setdiff1d(np.arange(first, end), gone)
        at, parts = 0, []
        labels = self.store.labels[positions]
        longest = longest_row(self.store.width, True)
        for block in self.store.rows(positions).blocks():
            rows = block if self.empty.expansion is None else expand(block, self.empty.expansion, longest)
            x = np.column_stack([np.ones(len(rows)), rows.astype(np.float64)])
            onehot = np.eye(self.classes)[labels[at : at + len(rows)]]
            at += len(rows)
            parts.append(np.vstack([x.T @ x, onehot.T @ x]))
        total: np.ndarray = np.sum(parts, axis=0)
        return total

    def _solve(self, sums: np.ndarray) -> np.ndarray:
        width = sums.shape[1]
        gram, cross = sums[:width], sums[width:].T
        n, mean = gram[0, 0], gram[0, 1:] / gram[0, 0]
        centred = gram[1:, 1:] - n * np.outer(mean, mean)
        centred[np.diag_indices(width - 1)] += np.trace(centred) / (width - 1) / 16
        right = cross[1:] - np.outer(mean, cross[0])
        weights: np.ndarray = cho_solve(cho_factor(centred, overwrite_a=True), right)
        return weights


def retained(given: Given) -> Found:
    """A person of ten rows leaves 20 retained versions of 5 models; in a process of its own."""
    row, megabytes = in_child(_retained, given.data)
    return Found([{**row, "peak_mb": megabytes}])


def _retained(data: Set) -> Row:
    empty = model(data, WIDTHS[-1])
    order = np.random.default_rng(3).permutation(len(data.y_train))
    gone = rows_of(data, order[:10], empty)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.fill(Path(folder), data.x_train.shape[1], data.y_train, ())
        version, versions = empty, []
        for part in np.array_split(order, VERSIONS):
            version = learn(version, rows_of(data, part, empty), analytic.METHOD, PARAMS)
            versions.append(Kept.write(store.vault, version))
        started = time.perf_counter()
        for kept in versions * MODELS:
            _forget(kept, gone)
        seconds = time.perf_counter() - started
        return {
            "models": MODELS,
            "versions": MODELS * VERSIONS,
            "seconds": seconds,
            "seconds_per_version": seconds / (MODELS * VERSIONS),
            "statistics_mb": MODELS * sum(kept.bytes for kept in versions) / 2**20,
        }


def _median(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


if __name__ == "__main__":
    main("exact", __doc__, {"forget": forget, "retained": retained}, sets=("clinc150",))
