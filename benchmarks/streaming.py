"""Streaming linear discriminant analysis as published, one row at a time, and ours beside it.

Hayes & Kanan (2020): the mean of the row's class and one covariance take a rank-one step per row; a version
is one inverse of the covariance shrunk by 1e-4. Two defects of the published code are not taken over: it
starts from a matrix of ones, and a class's first row counts as far from zero.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from app.methods.parts.grid import unit
from benchmarks import sequence
from benchmarks.candidates import HEADS, arriving
from benchmarks.sequence import Trace
from benchmarks.sets import Labels
from benchmarks.suite import Found, Given

SHRINKAGE = 1e-4


class StreamingLda:
    """State: a mean and a count per class, one covariance, how many rows made it."""

    def __init__(self, width: int) -> None:
        self.means: dict[int, NDArray[np.float64]] = {}
        self.counts: dict[int, int] = {}
        self.covariance = np.zeros((width, width))
        self.rows = 0
        self.weight, self.bias = np.zeros((0, width)), np.zeros(0)

    def learn(self, x: NDArray[np.float64], labels: Labels) -> None:
        """Row by row, then the version."""
        for row, label in zip(x, labels.tolist(), strict=True):
            self._learn_one(row, label)
        covariance = (1 - SHRINKAGE) * self.covariance + SHRINKAGE * np.eye(len(self.covariance))
        means = np.stack(list(self.means.values()))
        self.weight = means @ np.linalg.inv(covariance)
        self.bias = -(means * self.weight).sum(axis=1) / 2

    def predict(self, x: NDArray[np.float64]) -> Labels:
        best = (x @ self.weight.T + self.bias).argmax(axis=1)
        found: Labels = np.array(list(self.means))[best]
        return found

    def _learn_one(self, row: NDArray[np.float64], label: int) -> None:
        if label in self.means:
            away = row - self.means[label]
            share = self.rows / (self.rows + 1)
            self.covariance *= share
            self.covariance += np.outer(away * (share / (self.rows + 1)), away)
            self.means[label] = self.means[label] + away / (self.counts[label] + 1)
            self.counts[label] += 1
        else:
            self.means[label], self.counts[label] = row.copy(), 1
            self.covariance *= self.rows / (self.rows + 1)
        self.rows += 1


def duel(given: Given) -> Found:
    """50 classes, then ten updates, in the first order; both from rows on the grid."""
    data, candidate = given.data, HEADS["lda"]
    before = candidate.model(data)
    step, order = unit(before.grid), arriving(data, seed=0)
    test = sequence.on_grid(data.x_test, before).astype(np.float64) * step
    peer, theirs = StreamingLda(test.shape[1]), Trace()
    ours = sequence.run(before, data, order, candidate.method, candidate.params)
    for state, new in enumerate(order):
        chosen = np.isin(data.y_train, new)
        x = sequence.on_grid(data.x_train[chosen], before).astype(np.float64) * step
        started = time.perf_counter()
        peer.learn(x, data.y_train[chosen])
        theirs.seconds.append(time.perf_counter() - started)
        seen = np.concatenate(order[: state + 1])
        theirs.judge(data, seen, peer.predict(test[np.isin(data.y_test, seen)]))
    runs = {"lda": ours, "streaming lda, row by row": theirs}
    return Found(
        [
            {"method": name, "average": run.average, "last": run.last, "seconds": sum(run.seconds)}
            for name, run in runs.items()
        ]
    )
