"""Rows of integers, their statistics, and the heads that are made of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from app.methods.parts.bayes import naive_bayes
from app.methods.parts.closed_form import LinearHead
from app.methods.parts.discriminant import discriminant
from app.methods.parts.ridge import balanced_ridge, ridge
from app.methods.parts.statistics import Statistics, accumulate

BITS = 13
RHO = Fraction(3, 10)
HEADS = {
    "ridge": lambda s: ridge(s, -4, BITS),
    "balanced": lambda s: balanced_ridge(s, -4, BITS),
    "discriminant": lambda s: discriminant(s, RHO, BITS),
    "bayes": lambda s: naive_bayes(s, Fraction(1, 100), BITS),
}


def rows_of(
    seed: int, rows: int, width: int, classes: int, size: float = 900
) -> tuple[np.ndarray, np.ndarray]:
    """Imbalanced, overlapping classes of integer rows far from the origin; each class has a row."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    y[rows // 2 :] = 0
    x = rng.standard_normal((classes, width))[y] + rng.standard_normal((rows, width)) + 2
    return np.rint(x * size).astype(np.int64), y


def summed(x: np.ndarray, y: np.ndarray, targets: np.ndarray | None = None) -> Statistics:
    keys = [chr(97 + c) for c in range(int(y.max()) + 1)]
    return accumulate(keys, y.astype(np.int64), [x], x.shape[1], targets=targets)


def assert_near(found: LinearHead, weight: np.ndarray, bias: np.ndarray) -> None:
    assert found.weight == pytest.approx(weight, rel=1e-6, abs=1e-7 * np.abs(weight).max())
    assert found.bias == pytest.approx(bias, rel=1e-6, abs=1e-7 * np.abs(bias).max())
