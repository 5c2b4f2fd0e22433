"""The ridge by generalised cross-validation against the hat matrix."""

from __future__ import annotations

import numpy as np
import pytest

from app.methods.parts.crossvalidation import GRID, choose_k, gcv_scores
from app.methods.parts.ridge import ridge_exponent
from tests.methods.summed import BITS, rows_of, summed


def gcv_by_hand(z: np.ndarray, targets: np.ndarray, alpha: float) -> float:
    """From the hat matrix."""
    centred, n = z - z.mean(0), len(z)
    hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(z.shape[1]), centred.T) + 1 / n
    return float(((targets - hat @ targets) ** 2).sum() / (n - np.trace(hat)) ** 2)


@pytest.mark.parametrize("real", [True, False])
def test_gcv_scores_are_those_of_the_hat_matrix(real):
    x, y = rows_of(13, 120, 8, 3)
    t = np.rint(x[:, 0] + x[:, 1] ** 2 / 900).astype(np.int64)
    s = summed(x, y * 0, t) if real else summed(x, y)
    z, targets = x / 2**BITS, t[:, None] if real else np.eye(3)[y]
    j = ridge_exponent(s, np.ones(8, bool))

    scores = gcv_scores(s)

    expected = {k: gcv_by_hand(z, targets, 2.0 ** (j + k) / 120 / 4**BITS) for k in GRID}
    assert [scores[k] / scores[0] for k in GRID] == pytest.approx(
        [expected[k] / expected[0] for k in GRID], rel=1e-9
    )
    assert choose_k(s) == min(expected, key=lambda k: (expected[k], -k))


def test_gcv_chooses_a_weak_ridge_for_clean_targets_and_a_strong_one_for_noise():
    x, y = rows_of(14, 200, 10, 2)
    rng = np.random.default_rng(0)
    clean = np.rint(x @ rng.standard_normal(10) / 10 + rng.standard_normal(200) * 60).astype(np.int64)
    noise = rng.integers(-1000, 1000, 200)

    weak, strong = (choose_k(summed(x, y * 0, t)) for t in (clean, noise))

    assert weak < -4 < strong


def test_gcv_takes_the_largest_k_among_equals_and_where_nothing_is_left_to_explain():
    x, _ = rows_of(15, 30, 3, 2)
    assert choose_k(summed(x, np.zeros(30))) == GRID[-1]  # one class: every ridge is as good
