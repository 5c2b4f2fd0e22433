"""The published recipe of FeTrIL, step by step: scikit-learn's LinearSVC per class on materialised rows.

After the authors' code (`compute_distances`, `train_classifiers`, `compute_predictions`): centroids of raw
features, the most similar new class by cosine, translated rows of every past class made and kept in memory,
all rows of length one, `LinearSVC(C=1, tol=1e-4, dual=False)` one class against the rest.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from benchmarks.sets import Labels, Set

Matrix = NDArray[np.float64]


class Peer:
    """Learns state after state; `last` is the classifier of the latest."""

    def __init__(self, data: Set) -> None:
        self.data = data
        self.means: dict[int, Matrix] = {}
        self.last: LinearSVC | None = None

    def meet(self, new: Labels) -> None:
        """Take centroids of classes without fitting anything, as a version that knows them would hold."""
        for c in new:
            self.means[int(c)] = self.data.x_train[self.data.y_train == c].astype(np.float64).mean(axis=0)

    def learn(self, new: Labels, folder: Path) -> float:
        """One update, written to `folder`. Its seconds."""
        started = time.perf_counter()
        past = list(self.means)
        self.meet(new)
        rows, labels = self._pseudo(past, [int(c) for c in new])
        self.last = LinearSVC(C=1.0, tol=1e-4, dual=False).fit(unit_rows(rows), labels)
        np.savez(folder / "peer.npz", weight=self.last.coef_, bias=self.last.intercept_)
        return time.perf_counter() - started

    def predict(self, x: NDArray[np.generic]) -> Labels:
        assert self.last is not None
        found: Labels = self.last.predict(unit_rows(x.astype(np.float64)))
        return found

    def _pseudo(self, past: list[int], new: list[int]) -> tuple[Matrix, Labels]:
        own = {c: self.data.x_train[self.data.y_train == c].astype(np.float64) for c in new}
        rows, labels = [own[c] for c in new], [np.full(len(own[c]), c) for c in new]
        centres = unit_rows(np.stack([self.means[c] for c in new]))
        for p in past:
            donor = new[int(np.argmax(centres @ self.means[p]))]
            rows.append(own[donor] - self.means[donor] + self.means[p])
            labels.append(np.full(len(own[donor]), p))
        return np.concatenate(rows), np.concatenate(labels)


def learn_last(data: Set, arriving: list[Labels], folder: Path) -> float:
    """The last update alone, the largest."""
    peer = Peer(data)
    for new in arriving[:-1]:
        peer.meet(new)
    return peer.learn(arriving[-1], folder)


def unit_rows(x: Matrix) -> Matrix:
    unit: Matrix = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return unit
