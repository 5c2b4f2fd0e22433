"""The digest of every head that is promised to be the same on any machine: `python -m tests.methods.kernels`.

Given a number of threads and a seed, for the order of the rows and the size of their blocks. Prints one JSON
object. `float64` is what a plain solve gives: it is there to differ.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import solve

from app.methods.base import Context, Data, Method, Rows, Snapshot, Split, Task
from app.methods.incremental import analytic, fetril, lda, naive_bayes, ncm, ridge_regression, teen
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import quantise
from app.methods.parts.model_settings import FixedRidge, TargetGrid

INPUTS, CLASSES, EACH = 48, 12, 60
CASES: dict[str, tuple[Method[Any], dict[str, Any]]] = {
    "analytic": (analytic.METHOD, {}),
    "balanced": (analytic.METHOD, {"weights": "classes"}),
    "lda": (lda.METHOD, {}),
    "naive_bayes": (naive_bayes.METHOD, {}),
    "ridge_regression": (ridge_regression.METHOD, {}),
    "fetril": (fetril.METHOD, {"solver": "closed_form"}),
    "ncm": (ncm.METHOD, {}),
    "teen": (teen.METHOD, {"shots": 40}),
    "teen, chosen": (teen.METHOD, {"shots": 40, "choose": True}),
}


def main(threads: int, seed: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    base = Snapshot(
        InputSpec(kind="vector", shape=(INPUTS,)),
        "normalised",
        NetworkSpec(name="identity"),
        expansion=Expansion(width=256, seed=5),
    )
    found: dict[str, Any] = {}
    for name, (method, params) in CASES.items():
        found[name] = _heads(base, method, params, seed)
    for k in (-18, 2):
        ridge = replace(base, ridge=FixedRidge(k=k))
        found[f"analytic, k {k}"] = _heads(ridge, analytic.METHOD, {}, seed)
    for name in ("analytic", "ridge_regression"):
        found[f"{name}, gcv"] = _heads(replace(base, ridge="gcv"), *CASES[name], seed)
    return found | {"float64": _plain()}


def _heads(base: Snapshot, method: Method[Any], params: dict[str, Any], seed: int) -> list[Any]:
    """The digests after a first and a second update, and what the last one says that it chose."""
    real = Task.REGRESSION in method.tasks
    before = replace(base, target=TargetGrid(exponent=-12)) if real else base
    digests: list[Any] = []
    for classes in (range(8), range(4, CLASSES)):
        data: Data = {
            Split.NEW: _rows(classes, real, seed),
            Split.SELECT: _rows(range(8), False, 0, seed + 3),
        }
        outcome = method.run(before, data, method.params(**params), Context())
        before = outcome.after
        assert before.head is not None
        digests.append(before.head.digest(before.classes))
        if before.statistics is not None:
            digests.append(before.statistics.digest())
    return [
        *digests,
        {key: outcome.report[key] for key in ("k", "tau", "alpha", "score") if key in outcome.report},
    ]


def _rows(classes: range, real: bool, order: int, block: int | None = None) -> Rows:
    """Noisy rows of some classes, those past the eighth with few rows."""
    rng = np.random.default_rng([7, *classes])
    labels = np.concatenate([np.full(EACH if c < 8 else 10, c - classes[0]) for c in classes])
    centres = np.random.default_rng(1).standard_normal((CLASSES, INPUTS))
    x = centres[labels + classes[0]] + 2.5 * rng.standard_normal((len(labels), INPUTS))
    stored, targets = quantise(x, "normalised")[0], x[:, 0] + 0.1 * rng.standard_normal(len(x))
    shuffled = np.random.default_rng(order).permutation(len(x)) if order else np.arange(len(x))
    stored, labels, targets = stored[shuffled], labels[shuffled], targets[shuffled]
    step = 100 + 17 * (order if block is None else block)
    names = tuple(f"class {c:02}" for c in classes)
    return Rows(
        ("",) if real else names,
        np.zeros_like(labels) if real else labels,
        lambda: (stored[i : i + step] for i in range(0, len(stored), step)),
        targets if real else None,
    )


def _plain() -> str:
    """Ridge regression as one would write it, of the same rows in the same order, in float64."""
    rows = _rows(range(CLASSES), False, order=0)
    x, y = rows.load() / 2**13, np.eye(CLASSES)[rows.labels]
    z = np.maximum(x @ np.random.default_rng(2).standard_normal((INPUTS, 256)), 0)
    z, y = z - z.mean(axis=0), y - y.mean(axis=0)
    weights = solve(z.T @ z + 0.01 * np.eye(256), z.T @ y, assume_a="pos")
    return hashlib.sha256(weights.tobytes()).hexdigest()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(threads=int(sys.argv[1]), seed=int(sys.argv[2]))))
