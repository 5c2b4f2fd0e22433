"""Choosing the two parameters of TEEN without a row that it is later judged by: base classes play few-shot
ones.

Every fifth base class is hidden in turn. Its prototype is then made of its first rows in the evaluation data,
as many as a few-shot class has; the rest of its rows and those of the classes that were not hidden are
classified. The score of a pair (tau, alpha) is the mean over the turns of the harmonic mean of both
accuracies.

The pair is a function of centroids and rows, on any machine. Directions are integers (`directions`), so every
matrix product is exact whatever BLAS sums it; what follows is one correctly rounded operation per entry, the
exponential is rounded from double-double, and scores are fractions of counts. Of classes that score alike the
first by label key is taken. A prototype is `(1 - alpha) own + alpha drawn_tau` over its length, so a row's
products with `own` and with one `drawn` per tau give its scores for all pairs.

Cost: six passes over the evaluation data; 8 x base x width operations per row. Memory: `memory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Centroid, Rows, Unfit
from app.methods.parts import dd_functions
from app.methods.parts import double_double as dd
from app.methods.parts.centroids import add_by_class
from app.methods.parts.double_double import Array
from app.methods.parts.slicing import slice_bits

TURNS = 5
TAU = (1.0, 4.0, 8.0, 16.0, 32.0, 64.0)
ALPHA = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAIRS = tuple(product(ALPHA, TAU))  # of equals the first is taken: the least calibration
SHOTS = 5  # where there is no few-shot class yet
CHUNK = 512  # rows that are judged at once
POWERS = 2**16  # exponentials taken at once
# Bytes per feature of a class: sums, means and first rows as directions, and of a turn its anchors and seven
# directions of each hidden class, with what making them takes.
TABLE_BYTES = 64
ROW_BYTES = 48  # per class of a row that is judged: its scores

OTHER_BYTES = 2**24  # exponentials in double-double

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """The pair, what it scored, and what no calibration scored."""

    tau: float
    alpha: float
    score: float
    without: float


@dataclass(frozen=True)
class _Bench:
    """What every turn reads; classes are base classes in the order of their label keys."""

    rows: Rows
    truth: Integers  # (rows,): the class of a row that is judged, -1 of one that is not
    means: Array  # (classes, width) directions
    first: Array  # (classes, width) directions of their first evaluation rows
    bits: int  # of a direction's entries; its length is `unit`

    @property
    def unit(self) -> float:
        return float(2 ** (self.bits - 1))

    def judged(self) -> Iterator[tuple[Array, Integers]]:
        """Rows that are judged, and their classes."""
        at = 0
        for block in self.rows.blocks():
            truth = self.truth[at : at + len(block)]
            at += len(block)
            for start in range(0, len(block), CHUNK):
                own = truth[start : start + CHUNK]
                yield block[start : start + CHUNK][own >= 0].astype(np.float64), own[own >= 0]


def memory(width: int, classes: int) -> int:
    """Bytes that choosing takes at most, beside the centroids and one block of rows."""
    return TABLE_BYTES * classes * width + CHUNK * (ROW_BYTES * classes + 32 * width) + OTHER_BYTES


def choose(rows: Rows, centroids: Mapping[str, Centroid], base: tuple[str, ...]) -> Choice:
    """The pair that does best on `rows`, features of the evaluation data. Raises `Unfit` for too few."""
    known = set(base)
    few = [c.count for name, c in centroids.items() if name not in known]
    shots = int(median(few)) if few else SHOTS
    place = {name: i for i, name in enumerate(base)}
    index = np.array([place.get(name, -1) for name in rows.classes], np.int64)
    own, rank = index[rows.labels], _ranks(rows.labels)
    able = np.flatnonzero(np.bincount(own[(own >= 0) & (rank >= shots)], minlength=len(base)))
    if len(base) < 2 or not len(able):
        raise Unfit(
            "choosing tau and alpha needs two base classes, and an evaluation data set with more than "
            f"{shots} rows of one of them",
            "/evaluation",
        )
    bits = slice_bits(max(len(centroids[base[0]].sum), len(base)))
    bench = _Bench(
        rows,
        np.where(rank >= shots, own, -1),
        directions(np.stack([centroids[name].sum for name in base]), bits),
        directions(_first_rows(rows, own, rank < shots, len(base)), bits),
        bits,
    )
    hidden = [able[first::TURNS] for first in range(TURNS)]
    turns = [_turn(bench, some) for some in hidden if 0 < len(some) < len(base)]
    scores = [sum(turn, Fraction(0)) / len(turns) for turn in zip(*turns, strict=True)]
    best = scores.index(max(scores))
    alpha, tau = PAIRS[best]
    return Choice(tau, alpha, float(scores[best]), float(scores[0]))


def directions(x: NDArray[np.number], bits: int) -> Array:
    """(n, width) rows at length `2**(bits - 1)`, rounded to integers of at most `bits` bits; zeros stay.

    `bits` is that of `slice_bits(width)`: scaled by a power of two to so many bits, the sum of squares of a
    row is an exact integer; one square root and one division follow, both correctly rounded.
    """
    z = x.astype(np.float64)
    exponent = np.frexp(np.abs(z).max(axis=1, initial=0.0, keepdims=True))[1]  # |z| < 2**exponent
    z = np.rint(np.ldexp(z, bits - 1 - exponent))
    length = np.sqrt(np.einsum("ij,ij->i", z, z))[:, None]
    length[length == 0] = 1.0
    found: Array = np.rint(np.ldexp(z, bits - 1) / length)
    return found


def drawn_to(own: Array, anchors: Array, tau: float, bits: int) -> Array:
    """Directions (few, width) of the mixtures of `anchors` that `own` (few, width) are drawn to.

    The weights are `exp(tau (cosine - largest cosine))` on a grid of `bits - 1` bits; their sum does not
    matter to a direction.
    """
    drawn = np.empty_like(own)
    step = max(1, POWERS // len(anchors))
    for start in range(0, len(own), step):
        cosines = np.ldexp(own[start : start + step] @ anchors.T, 2 - 2 * bits)
        powers = dd_functions.exp(dd.exact(tau * (cosines - cosines.max(axis=1, keepdims=True))))
        weights = np.rint(np.ldexp(powers.hi, bits - 1))
        drawn[start : start + step] = directions(weights @ anchors, bits)
    return drawn


def _ranks(labels: Integers) -> Integers:
    """(rows,): how many rows of the same label stand before each row."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return ranks


def _first_rows(rows: Rows, own: Integers, first: NDArray[np.bool_], classes: int) -> Integers:
    """(classes, width): sums of the rows that are `first` of their class and of a base class, `own`."""
    sums: Integers | None = None
    at = 0
    for block in rows.blocks():
        if sums is None:
            sums = np.zeros((classes, block.shape[1]), np.int64)
        labels = own[at : at + len(block)]
        use = first[at : at + len(block)] & (labels >= 0)
        at += len(block)
        add_by_class(sums, block[use], labels[use])
    if sums is None:
        raise ValueError("labels of no rows")
    return sums


def _turn(bench: _Bench, hidden: Integers) -> list[Fraction]:
    """For every pair the harmonic mean of the accuracies on hidden classes and on those that are kept."""
    kept = np.setdiff1d(np.arange(len(bench.means)), hidden)
    anchors, own = bench.means[kept], bench.first[hidden]
    drawn = [drawn_to(own, anchors, tau, bench.bits) for tau in TAU]
    lengths = _lengths(own, drawn, bench.unit)
    anchor_lengths = _nonzero(np.sqrt(np.einsum("ij,ij->i", anchors, anchors)) / bench.unit)
    hits, seen = np.zeros((len(PAIRS), 2), np.int64), np.zeros(2, np.int64)
    for x, truth in bench.judged():
        is_hidden = np.isin(truth, hidden).astype(np.int64)
        seen += np.bincount(is_hidden, minlength=2)
        near, best = _best((x @ anchors.T) / anchor_lengths, kept)
        plain, mixed = x @ own.T, [x @ toward.T for toward in drawn]
        for p, (alpha, tau) in enumerate(PAIRS):
            scores = ((1 - alpha) * plain + alpha * mixed[TAU.index(tau)]) / lengths[p]
            few, best_few = _best(scores, hidden)
            guess = np.where((few > near) | ((few == near) & (best_few < best)), best_few, best)
            hits[p] += np.bincount(is_hidden[guess == truth], minlength=2)
    return [_harmonic(pair, seen) for pair in hits]


def _lengths(own: Array, drawn: list[Array], unit: float) -> list[Array]:
    """For every pair the lengths (few,) of `(1 - alpha) own + alpha drawn` over that of a direction."""
    squared = np.einsum("ij,ij->i", own, own)  # integers below 2**53, as the other two
    found = []
    for alpha, tau in PAIRS:
        toward = drawn[TAU.index(tau)]
        across, other = np.einsum("ij,ij->i", own, toward), np.einsum("ij,ij->i", toward, toward)
        rest = 1 - alpha
        square = rest * rest * squared + 2 * rest * alpha * across + alpha * alpha * other  # no libm
        found.append(_nonzero(np.sqrt(np.maximum(square, 0.0)) / unit))
    return found


def _nonzero(lengths: Array) -> Array:
    """What to divide by: a vector without a length scores 0."""
    lengths[lengths == 0] = 1.0
    return lengths


def _best(scores: Array, classes: Integers) -> tuple[Array, Integers]:
    """(rows,): the best score, and its class; of equals the first."""
    best = scores.argmax(axis=1)
    return scores[np.arange(len(scores)), best], classes[best]


def _harmonic(hits: Integers, seen: Integers) -> Fraction:
    """Of the accuracies on kept and on hidden classes; a group without rows counts as missed."""
    kept, hidden = (Fraction(int(hit), max(int(n), 1)) for hit, n in zip(hits, seen, strict=True))
    return 2 * kept * hidden / (kept + hidden) if kept + hidden else Fraction(0)
