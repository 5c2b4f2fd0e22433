"""What correct rounding costs beside the solve: `python -m benchmarks.solve --data DIR`.

The statistics are those of the set's expanded training rows; classes that a set lacks are made by cutting its
own into parts, so that 150 columns are solved for. The plain solve is one float64 Cholesky factorisation and
its triangular solves; the refinement is what the rounded head takes beyond that, slicing included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from app.methods.parts import double_double as dd
from app.methods.parts.closed_form import varying
from app.methods.parts.refined_solve import Solution, System, rounded_weights, until_decided
from app.methods.parts.ridge import ridge_exponent
from app.methods.parts.statistics import Statistics
from benchmarks.candidates import model
from benchmarks.common import Bar
from benchmarks.recursion import K, grid_rows, statistics_of
from benchmarks.sets import Labels
from benchmarks.suite import Found, Given, main

TURNS = {2_048: 15, 5_000: 5}  # by width
CLASSES = 150
MOST = 3.0
T = TypeVar("T")


def refinement(given: Given) -> Found:
    """Both in turns; medians of the seconds and of their ratio, and the ratio of the least seconds."""
    found = Found()
    for width, repeats in TURNS.items():
        before = model(given.data, width)
        x = grid_rows(given.data.x_train, before)
        system = centred(statistics_of(x, cut(given.data.y_train), before.expansion))
        turns = np.array([_turn(system) for _ in range(repeats)])
        formed, plain, whole = np.median(turns, axis=0)
        ratio = float(np.median(_ratio(turns)))
        found.rows.append(
            {
                "width": width,
                "classes": system.right.hi.shape[1],
                "form_seconds": float(formed),
                "solve_seconds": float(plain),
                "rounded_seconds": float(whole),
                "rounds": until_decided(system, _rounds),
                "refinement_over_solve": ratio,
                "at_best": float(_ratio(turns.min(axis=0, keepdims=True))[0]),
            }
        )
        found.bars.append(Bar(f"width {width:,}: refinement over the solve", ratio, MOST, ratio <= MOST))
    return found


def cut(labels: Labels) -> Labels:
    """`CLASSES` labels: the rows of each class dealt out among as many as it takes."""
    parts = -(-CLASSES // (int(labels.max()) + 1))
    finer: Labels = np.minimum(labels * parts + np.arange(len(labels)) % parts, CLASSES - 1)
    return finer


def centred(statistics: Statistics) -> System:
    """The system that `analytic` solves: `n G - s s^T` with its ridge, `n Q - s t^T`."""
    n, total = float(statistics.rows), statistics.total().astype(np.float64)
    sums, counts = statistics.sums.T.astype(np.float64), statistics.counts.astype(np.float64)
    return System(
        gram=statistics.full_gram(),
        a=dd.exact(n),
        columns=total[:, None],
        b=dd.exact(np.array([-1.0])),
        h=dd.exact(np.zeros(1)),
        over=dd.exact(1.0),
        ridge=dd.exact(2.0 ** (ridge_exponent(statistics, varying(statistics)) + K)),
        right=dd.add(dd.two_product(np.asarray(n), sums), -dd.two_product(total[:, None], counts[None])),
    )


def _ratio(turns: np.ndarray) -> np.ndarray:
    """(turns,) from the seconds of forming, solving plainly and rounding, (turns, 3)."""
    ratio: np.ndarray = (turns[:, 2] - turns[:, 0] - turns[:, 1]) / turns[:, 1]
    return ratio


def _turn(system: System) -> tuple[float, float, float]:
    """Seconds to form the matrix, to solve it plainly, and to the rounded weights."""
    matrix, forming = _timed(lambda: _matrix(system))
    right = system.right.hi
    _, plain = _timed(
        lambda: cho_solve(
            cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False), right, check_finite=False
        )
    )
    _, whole = _timed(lambda: until_decided(system, rounded_weights))
    return forming, plain, whole


def _rounds(found: Solution) -> int | None:
    return None if rounded_weights(found) is None else found.rounds


def _matrix(system: System) -> np.ndarray:
    matrix = float(system.a.hi) * system.gram
    matrix += (system.columns * system.b.hi) @ system.columns.T
    matrix[np.diag_indices(len(matrix))] += float(system.ridge.hi)
    return matrix


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


if __name__ == "__main__":
    main("solve", __doc__, {"refinement": refinement}, sets=("clinc150",))
