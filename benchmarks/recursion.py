"""The analytic head as its papers compute it, a recursion on the inverse, and ours beside it.

The order of products is that of the papers' code (`R @ X.T @ K @ X @ R`, from left to right), in float64. The
recursion has no intercept and its ridge is fixed before the first row; so here ours solves the same system.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from app.methods.base import Snapshot
from app.methods.parts import double_double as dd
from app.methods.parts import statistics as exact
from app.methods.parts.closed_form import varying
from app.methods.parts.expansion import Expansion, expand, longest_row
from app.methods.parts.refined_solve import System, rounded_weights, until_decided
from app.methods.parts.ridge import ridge_exponent
from app.methods.parts.statistics import Statistics
from benchmarks.candidates import arriving, model
from benchmarks.common import Bar, at_least
from benchmarks.sequence import key, on_grid
from benchmarks.sets import Labels, Set
from benchmarks.suite import Found, Given

WIDTH = 2_048
K = -4
FASTER, APART = 1.8, 1e-6


class Recursion:
    """`R = (G + ridge I)^-1` and `W = R Q`, brought up to date by batches (ACIL and G-ACIL)."""

    def __init__(self, width: int, ridge: float) -> None:
        self.inverse = torch.eye(width, dtype=torch.float64) / ridge
        self.weight = torch.zeros((width, 0), dtype=torch.float64)
        self.classes: list[int] = []  # of the columns, by arrival

    def learn(self, x: NDArray[np.generic], labels: Labels) -> None:
        rows = torch.from_numpy(x.astype(np.float64))
        targets = self._targets(labels)
        k = torch.inverse(torch.eye(len(rows), dtype=torch.float64) + rows @ self.inverse @ rows.T)
        self.inverse -= self.inverse @ rows.T @ k @ rows @ self.inverse
        self.weight += self.inverse @ rows.T @ (targets - rows @ self.weight)

    def predict(self, x: NDArray[np.generic]) -> Labels:
        best = (torch.from_numpy(x.astype(np.float64)) @ self.weight).argmax(dim=1).numpy()
        found: Labels = np.array(self.classes)[best]
        return found

    def sorted_weight(self) -> NDArray[np.float64]:
        """(width, classes), columns by class number."""
        weight: NDArray[np.float64] = self.weight.numpy()[:, np.argsort(self.classes)]
        return weight

    def _targets(self, labels: Labels) -> torch.Tensor:
        new = [int(c) for c in np.unique(labels) if int(c) not in self.classes]
        self.classes += new
        more = torch.zeros((len(self.weight), len(new)), dtype=torch.float64)
        self.weight = torch.cat([self.weight, more], dim=1)
        place = {c: i for i, c in enumerate(self.classes)}
        targets = torch.zeros((len(labels), len(self.classes)), dtype=torch.float64)
        targets[np.arange(len(labels)), [place[int(c)] for c in labels]] = 1.0
        return targets


def grid_rows(x: NDArray[np.generic], before: Snapshot) -> NDArray[np.int32]:
    """Rows of the model's expansion."""
    assert before.expansion is not None
    return expand(on_grid(x, before), before.expansion, longest_row(x.shape[1], before.grid == "normalised"))


def statistics_of(x: NDArray[np.int32], labels: Labels, expansion: Expansion | None) -> Statistics:
    names, numbers = np.unique(labels, return_inverse=True)
    return exact.accumulate(tuple(map(key, names)), numbers, [x], x.shape[1], expansion)


def last_ridge(data: Set, before: Snapshot) -> float:
    """What the model's own head adds to the Gram once it knows all rows, in grid units."""
    found = statistics_of(grid_rows(data.x_train, before), data.y_train, before.expansion)
    ridge: float = 2.0 ** (ridge_exponent(found, varying(found)) + K) / found.rows
    return ridge


def uncentred(statistics: Statistics, ridge: float) -> System:
    """`(G + ridge I) W = Q`."""
    return System(
        gram=statistics.full_gram(),
        a=dd.exact(1.0),
        columns=np.zeros((statistics.width, 0)),
        b=dd.exact(np.zeros(0)),
        h=dd.exact(np.zeros(0)),
        over=dd.exact(1.0),
        ridge=dd.exact(ridge),
        right=dd.exact(statistics.sums.T.astype(np.float64)),
    )


def duel(given: Given) -> Found:
    """50 classes, then ten updates, both in turns: seconds from rows on the grid to weights."""
    data = given.data
    before = model(data, WIDTH)
    ridge = last_ridge(data, before)
    peer, known = Recursion(WIDTH, ridge), exact.empty(WIDTH, before.expansion)
    found = Found()
    for state, new in enumerate(arriving(data, seed=0)):
        chosen = np.isin(data.y_train, new)
        x, labels = on_grid(data.x_train[chosen], before), data.y_train[chosen]
        started = time.perf_counter()
        peer.learn(grid_rows(x, before), labels)
        theirs = time.perf_counter() - started
        started = time.perf_counter()
        known = known.merge(statistics_of(grid_rows(x, before), labels, before.expansion))
        ours = until_decided(uncentred(known, ridge), rounded_weights)
        seconds = time.perf_counter() - started
        weight = peer.sorted_weight()
        apart = float(np.linalg.norm(weight - ours) / np.linalg.norm(weight))
        line = {"state": state, "rows": len(labels), "recursion_seconds": theirs, "seconds": seconds}
        found.rows.append(line | {"faster": theirs / seconds, "apart": apart})
    found.bars = bars(found.rows, data.name)
    return found


def bars(rows: list[dict[str, float]], name: str) -> list[Bar]:
    whole, later = (
        sum(row["recursion_seconds"] for row in part) / sum(row["seconds"] for row in part)
        for part in (rows, rows[1:])
    )
    apart = max(row["apart"] for row in rows)
    agree = Bar("weights of the recursion and ours, relative difference", apart, APART, apart <= APART)
    if name != "clinc150":
        return [agree]
    return [
        at_least("faster than the recursion, whole sequence", whole, FASTER),
        at_least("faster than the recursion, updates after the first", later, FASTER),
        agree,
    ]
