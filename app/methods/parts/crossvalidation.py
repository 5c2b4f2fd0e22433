"""The ridge by generalised cross-validation (Golub, Heath & Wahba 1979), as a function of the statistics.

`GCV(lambda) = n |Y - Y^(lambda)|^2 / (n - df)^2`, `df = 1 + sum_i sigma_i / (sigma_i + lambda)`, sigma_i the
eigenvalues of `n G - s s^T`. With q_i the squared coordinates of `n Q - s t^T` in the eigenvectors, the
residual is `|Y|^2 - sum_i q_i (sigma_i + 2 lambda) / (sigma_i + lambda)^2`, all times n.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from app.methods.parts.closed_form import live_gram, varying
from app.methods.parts.double_double import Array
from app.methods.parts.ridge import ridge_exponent
from app.methods.parts.statistics import Statistics

GRID = tuple(range(-16, 5))  # of k
TIE = 1e-9
LEAST_RESIDUAL = 1e-4  # a smaller share of the variance could not be told from rounding within a tie


def choose_k(statistics: Statistics) -> int:
    """The k of `GRID` with the least GCV score; of scores within 1e-9 the largest k.

    A k that leaves less than 1e-4 of the variance unexplained is not considered; where none is left, the
    largest. Cost: one symmetric eigenvalue problem (some 10 Cholesky factorisations); memory 32 d^2 bytes.
    """
    scores = gcv_scores(statistics)
    least = min(scores.values(), default=None)
    if least is None:
        return GRID[-1]
    return max(k for k, score in scores.items() if score <= least * (1 + TIE))


def gcv_scores(statistics: Statistics) -> dict[int, float]:
    """The score of every k that can be measured."""
    live = varying(statistics)
    n, total = statistics.rows, statistics.total()[live].astype(np.float64)
    cross, sums, variance = _targets(statistics)
    centred = n * live_gram(statistics, live) - np.outer(total, total)
    values, vectors = eigh(centred, overwrite_a=True, check_finite=False)
    values = np.maximum(values, 0.0)
    right = n * cross[:, live].T - np.outer(total, sums)
    squared = ((vectors.T @ right) ** 2).sum(axis=1)
    exponent = ridge_exponent(statistics, live)
    found = {}
    for k in GRID:
        ridge = 2.0 ** (exponent + k)
        explained = float((squared * (values + 2 * ridge) / (values + ridge) ** 2).sum())
        residual = variance - explained
        freedom = n - 1 - float((values / (values + ridge)).sum())
        if variance > 0 and residual >= LEAST_RESIDUAL * variance and freedom > 0:
            found[k] = residual / freedom**2
    return found


def _targets(statistics: Statistics) -> tuple[Array, Array, float]:
    """Sums of rows times targets (outputs, width), of targets (outputs,), and `n` times their variance."""
    n = statistics.rows
    if statistics.targets is not None:
        t = statistics.targets
        return (
            t.cross[None].astype(np.float64),
            np.array([float(t.total)]),
            float(n * t.squares - t.total**2),
        )
    counts = statistics.counts.tolist()
    variance = float(sum(c * (n - c) for c in counts))
    return statistics.sums.astype(np.float64), statistics.counts.astype(np.float64), variance
