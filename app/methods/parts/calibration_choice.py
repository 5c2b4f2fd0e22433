"""Choosing the two parameters of TEEN without a row that it is later judged by: base classes play few-shot
ones.

Every fifth base class is hidden in turn. Its prototype is then made of its first rows in the evaluation data,
as many as a few-shot class has; the rest of its rows and those of the classes that were not hidden are
classified. The score of a pair (tau, alpha) is the mean over the turns of the harmonic mean of both
accuracies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Centroid, Rows, Unfit
from app.methods.parts.double_double import Array

TURNS = 5
TAU = (1.0, 4.0, 8.0, 16.0, 32.0, 64.0)
ALPHA = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAIRS = tuple(product(ALPHA, TAU))  # of equals the first is taken: the least calibration
TIE = 1e-9
SHOTS = 5  # where there is no few-shot class yet


@dataclass(frozen=True)
class Choice:
    """The pair, what it scored, and what no calibration scored."""

    tau: float
    alpha: float
    score: float
    without: float


@dataclass(frozen=True)
class _Turn:
    """The prototypes of one turn: base classes that stay, and hidden ones by pair."""

    kept: Array  # (kept, width) unit vectors
    hidden: list[Array]  # per pair, (hidden, width) unit vectors
    place: Mapping[str, int]  # of a class among kept and hidden


def choose(rows: Rows, centroids: Mapping[str, Centroid], base: tuple[str, ...]) -> Choice:
    """The pair that does best on `rows`, features of the evaluation data. Raises `Unfit` for too few."""
    few = [c.count for name, c in centroids.items() if name not in base]
    shots = int(median(few)) if few else SHOTS
    sums, counts = _first_rows(rows, shots)
    able = [name for name in base if counts.get(name, 0) > shots]
    if len(base) < 2 or not able:
        raise Unfit(
            "choosing tau and alpha needs two base classes, and an evaluation data set with more than "
            f"{shots} rows of one of them",
            "/evaluation",
        )
    turns = [
        _turn([name for name in base if name not in hidden], hidden, centroids, sums)
        for hidden in (able[first::TURNS] for first in range(TURNS))
        if hidden and len(hidden) < len(base)
    ]
    scores = _scores(rows, turns, sums, shots)
    best = int(np.flatnonzero(scores >= scores.max() - TIE)[0])
    alpha, tau = PAIRS[best]
    return Choice(tau, alpha, float(scores[best]), float(scores[0]))


def calibrate(own: Array, anchors: Array, tau: float, alpha: float) -> Array:
    """(few, width) unit vectors `own` drawn to `anchors` (base, width), in float64: for trying pairs out."""
    cosines = tau * own @ anchors.T
    share = np.exp(cosines - cosines.max(axis=1, keepdims=True))
    drawn = unit_rows((share / share.sum(axis=1, keepdims=True)) @ anchors)
    return unit_rows((1 - alpha) * own + alpha * drawn)


def unit_rows(x: Array) -> Array:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    units: Array = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    return units


def _first_rows(rows: Rows, shots: int) -> tuple[dict[str, Array], dict[str, int]]:
    """For each class the sum of its first `shots` rows, and how many rows it has."""
    sums: dict[str, Array] = {}
    seen: dict[str, int] = {}
    for name, x in _named(rows):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= shots:
            sums[name] = sums[name] + x if name in sums else x.astype(np.float64)
    return sums, seen


def _turn(
    kept: list[str], hidden: list[str], centroids: Mapping[str, Centroid], sums: Mapping[str, Array]
) -> _Turn:
    anchors = unit_rows(np.stack([centroids[name].mean() for name in kept]))
    own = unit_rows(np.stack([sums[name] for name in hidden]))
    tried = [calibrate(own, anchors, tau, alpha) for alpha, tau in PAIRS]
    return _Turn(anchors, tried, {name: i for i, name in enumerate([*kept, *hidden])})


def _scores(rows: Rows, turns: list[_Turn], sums: Mapping[str, Array], shots: int) -> Array:
    """(pairs,): the harmonic mean of the accuracy on kept and on hidden classes, mean over the turns."""
    hits, all = np.zeros((len(turns), len(PAIRS), 2)), np.zeros((len(turns), 1, 2))
    seen: dict[str, int] = {}
    at = 0
    for block in rows.blocks():
        names = [rows.classes[i] for i in rows.labels[at : at + len(block)]]
        at += len(block)
        judged = []
        for name in names:
            seen[name] = seen.get(name, 0) + 1
            judged.append(seen[name] > shots)
        for t, turn in enumerate(turns):
            chosen = [
                i
                for i, (name, use) in enumerate(zip(names, judged, strict=True))
                if use and name in turn.place
            ]
            truth = np.array([turn.place[names[i]] for i in chosen], np.int64)
            group = (truth >= len(turn.kept)).astype(np.int64)
            all[t, 0] += np.bincount(group, minlength=2)
            x = block[chosen].astype(np.float64)
            near = x @ turn.kept.T
            for p, prototypes in enumerate(turn.hidden):
                guess = np.concatenate([near, x @ prototypes.T], axis=1).argmax(axis=1)
                hits[t, p] += np.bincount(group, weights=guess == truth, minlength=2)
    accuracy = hits / np.maximum(all, 1)
    total = accuracy.sum(axis=2)
    harmonic = np.divide(2 * accuracy.prod(axis=2), total, out=np.zeros_like(total), where=total > 0)
    mean: Array = harmonic.mean(axis=0)
    return mean


def _named(rows: Rows) -> Iterator[tuple[str, NDArray[np.int16]]]:
    at = 0
    for block in rows.blocks():
        for x in block:
            yield rows.classes[rows.labels[at]], x
            at += 1
