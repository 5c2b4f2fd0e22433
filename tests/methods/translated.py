"""Problems for FeTrIL, and its pseudo-features really made, one class at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from app.methods.base import Context, Outcome, Snapshot, Split
from app.methods.incremental import ncm
from app.methods.incremental.fetril import METHOD, FetrilParams
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.grid import ExponentGrid, Grid, quantise, unit
from tests.methods.conftest import rows_of

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
WIDTH = 12
OLD, NEW = tuple("abcde"), tuple("CDxyz")  # new classes before and after the old ones in byte order


def clusters(names: tuple[str, ...], each: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Overlapping classes of different shape around random centres: no solver has an easy time."""
    x, labels = [], []
    for name in names:
        of_class = np.random.default_rng(ord(name))  # a class is the same wherever it is asked for
        shape = 0.35 * of_class.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH) + 0.2 * np.eye(WIDTH)
        centre = of_class.standard_normal(WIDTH) / 2 + 0.5
        rng = np.random.default_rng((ord(name), seed))
        count = each + ord(name) % 3  # unequal counts
        x.append(centre + rng.standard_normal((count, WIDTH)) @ shape)
        labels += [name] * count
    return np.concatenate(x).astype(np.float32), labels


@dataclass(frozen=True)
class Problem:
    before: Snapshot
    x: np.ndarray  # (rows, width) int16
    labels: list[str]

    def run(self, ctx: Context | None = None, **params: object) -> Outcome:
        data = {Split.NEW: rows_of(self.x, self.labels)}
        return METHOD.run(self.before, data, FetrilParams.model_validate(params), ctx or Context())

    def pseudo(self, rule: str = "cosine", *, normalise: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The rows that FeTrIL learns from, made one class at a time in float64, and their labels."""
        x = self.x.astype(np.float64) * unit(self.before.grid)
        labels = np.array(self.labels)
        means = {name: x[labels == name].mean(axis=0) for name in sorted(set(self.labels))}
        made, names = [x], [labels]
        for past, centroid in self.before.centroids.items():
            if past in means:
                continue
            mu = centroid.mean() * unit(self.before.grid)
            donor = max(means, key=lambda n: nearness(mu, means[n], rule))
            rows = x[labels == donor]
            made.append(rows - means[donor] + mu)
            names.append(np.array([past] * len(rows)))
        z = np.concatenate(made)
        return z / np.linalg.norm(z, axis=1, keepdims=True) if normalise else z, np.concatenate(names)


def nearness(a: np.ndarray, b: np.ndarray, rule: str) -> float:
    if rule == "euclidean":
        return -float(np.linalg.norm(a - b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def a_problem(
    old: tuple[str, ...] = OLD, new: tuple[str, ...] = NEW, grid: Grid = "normalised", each: int = 20
) -> Problem:
    empty = Snapshot(InputSpec(kind="vector", shape=(WIDTH,)), grid, NetworkSpec(name="identity"))
    before = empty
    if old:
        x, labels = clusters(old, 20)
        rows = rows_of(quantise(x, grid)[0], labels)
        before = ncm.METHOD.run(empty, {Split.NEW: rows}, ncm.NcmParams(), Context()).after
    x, labels = clusters(new, each, seed=1)
    return Problem(before, quantise(x, grid)[0], labels)


def head_of(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    head = outcome.after.head
    assert head is not None
    return head.weight.numpy().astype(np.float64), head.bias.numpy().astype(np.float64)


PROBLEMS = [
    pytest.param({}, id="five past, five new"),
    pytest.param({"old": ()}, id="nothing past"),
    pytest.param({"old": tuple("abcdefgh"), "new": ("x",)}, id="one donor for all"),
    pytest.param({"old": ("a",), "new": ("x",)}, id="two classes"),
    pytest.param({"grid": ExponentGrid(exponent=-9)}, id="not normalised"),
    pytest.param({"each": 300}, id="donors of several blocks"),
]
