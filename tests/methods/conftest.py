"""A tiny problem of known geometry for any method, chosen by what the method needs and reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from app.methods import networks
from app.methods.base import Context, Data, Method, Reads, Rows, Snapshot, Split, Task
from app.methods.incremental import ncm
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.features import embed
from app.methods.parts.grid import quantise
from app.methods.parts.model_settings import TargetGrid
from app.methods.parts.scoring import scorer_of

WIDTH = 8
KNOWN = ("blue", "green", "red")
NEW = ("amber", "cyan", "pink")  # before, between and after the known ones in byte order


@dataclass(frozen=True)
class Toy:
    """A version, data to learn from, and other rows of old and new classes to be judged by."""

    before: Snapshot
    data: Data
    inputs: np.ndarray  # (rows, width) float32
    labels: list[str]

    def found(self, after: Snapshot) -> dict[str, float]:
        """Accuracy of every class."""
        guesses = np.array(predict(after, self.inputs))
        return {
            name: float((guesses[np.array(self.labels) == name] == name).mean()) for name in after.classes
        }


def blobs(names: tuple[str, ...], each: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rows around one axis per class, float32, row by row in turn through the classes."""
    rng = np.random.default_rng(seed)
    axes = {name: i for i, name in enumerate((*KNOWN, *NEW))}
    labels = [name for _ in range(each) for name in names]
    rows = np.eye(WIDTH)[[axes[name] for name in labels]] + 0.15 * rng.standard_normal((len(labels), WIDTH))
    return rows.astype(np.float32), labels


def rows_of(x: np.ndarray, labels: list[str], block: int = 7, targets: np.ndarray | None = None) -> Rows:
    """Read-only blocks, as a store hands them out."""
    x.flags.writeable = False
    classes = tuple(sorted(set(labels), key=str.encode))
    numbers = np.array([classes.index(label) for label in labels], np.int64)
    return Rows(classes, numbers, lambda: (x[i : i + block] for i in range(0, len(x), block)), targets)


def predict(version: Snapshot, x: np.ndarray) -> list[str]:
    """The best class of each row; of a regression, its value as it is written."""
    network = networks.load(version.network, version.input, version.weights)
    (features,) = embed(network, [x], version.grid)
    scorer = scorer_of(version)
    if version.target is not None:
        return [repr(value) for value in scorer.values(features)]
    return [version.classes[i] for i in scorer(features).argmax(axis=1)]


def a_version(known: tuple[str, ...] = (), network: str = "identity") -> Snapshot:
    """A model of vectors that knows the classes `known` by their means."""
    params: dict[str, Any] = {"hidden": [16]} if network == "mlp" else {}
    spec = NetworkSpec(name=network, params=params)
    empty = Snapshot(InputSpec(kind="vector", shape=(WIDTH,)), "normalised", spec)
    if not known:
        return empty
    x, labels = blobs(known, each=12, seed=0)
    rows = rows_of(quantise(x, "normalised")[0], labels)
    return ncm.METHOD.run(empty, {Split.NEW: rows}, ncm.NcmParams(), Context()).after


SLOPE = np.random.default_rng(9).standard_normal(WIDTH)


def with_targets(x: np.ndarray, labels: list[str]) -> Rows:
    """Rows whose target is linear in the row on the grid, up to the targets' own grid."""
    stored = quantise(x, "normalised")[0]
    return rows_of(stored, [""] * len(labels), targets=stored @ SLOPE / 2**13 + 3)


def before_statistics(method: Method[Any]) -> Snapshot:
    """A model with an expansion that learned its known rows by the method itself."""
    empty = replace(a_version(), expansion=Expansion(width=32, seed=1))
    x, labels = blobs(KNOWN, each=12, seed=0)
    rows = rows_of(quantise(x, "normalised")[0], labels)
    if Task.REGRESSION in method.tasks:
        empty, rows = replace(a_version(), target=TargetGrid(exponent=-12)), with_targets(x, labels)
    return method.run(empty, {Split.NEW: rows}, method.params(), Context()).after


@pytest.fixture
def toy() -> Callable[[Method[Any]], Toy]:
    def make(method: Method[Any]) -> Toy:
        first = method.trains_network  # a network is trained once, before anything is known
        before = a_version(network="mlp") if first else a_version(KNOWN)
        if method.statistics:
            before = before_statistics(method)
        x, labels = blobs(NEW, each=12, seed=1)
        stored = x if method.reads is Reads.INPUTS else quantise(x, before.grid)[0]
        splits = {Split.NEW: rows_of(stored, labels)}
        if Task.REGRESSION in method.tasks:
            splits = {Split.NEW: with_targets(x, labels)}
        judged = blobs(NEW if first else (*KNOWN, *NEW), each=20, seed=2)
        return Toy(before, {split: splits[split] for split in method.needs}, *judged)

    return make
