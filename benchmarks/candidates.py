"""The heads that learn exactly and those beside them, as the benchmarks run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.methods.base import Context, Method, Params, Rows, Snapshot, Split
from app.methods.incremental import analytic, fetril, lda, naive_bayes, ncm
from app.methods.parts.digest import array_digest
from app.methods.parts.expansion import Expansion
from benchmarks.pretrained import empty_model
from benchmarks.sequence import key, on_grid
from benchmarks.sets import Labels, Set, states


@dataclass(frozen=True)
class Candidate:
    """A method with its parameters, on a model with an expansion of `width` or without."""

    method: Method[Any]
    params: Params
    width: int | None = None

    def model(self, data: Set, seed: int = 0) -> Snapshot:
        return model(data, self.width, seed)


def model(data: Set, width: int | None = None, seed: int = 0) -> Snapshot:
    """A model that knows nothing yet."""
    expansion = None if width is None else Expansion(width=width, seed=seed)
    return replace(empty_model(data), expansion=expansion)


# Best with the expansion on validation rows of clinc150, of 0.0001 to 0.7; those of tiny_imagenet_a100
# would take 0.3; the method's default, 0.1, is at most 0.2 points below the best on both.
SHRINKAGE = lda.LdaParams(shrinkage=0.01)
HEADS: Mapping[str, Candidate] = {
    "ncm": Candidate(ncm.METHOD, ncm.NcmParams()),
    "fetril closed_form": Candidate(fetril.METHOD, fetril.FetrilParams(solver="closed_form")),
    "naive_bayes": Candidate(naive_bayes.METHOD, naive_bayes.NaiveBayesParams()),
    "lda": Candidate(lda.METHOD, SHRINKAGE),
    "lda 2,048": Candidate(lda.METHOD, SHRINKAGE, 2_048),
    "analytic 2,048": Candidate(analytic.METHOD, analytic.AnalyticParams(), 2_048),
    "analytic 5,000": Candidate(analytic.METHOD, analytic.AnalyticParams(), 5_000),
}


def arriving(data: Set, seed: int, *, one_by_one: bool = False) -> list[Labels]:
    """50 classes, or half of what a small set has; then ten updates, or one class per update."""
    base = min(50, data.classes // 2)
    left = data.classes - base
    return states(data.classes, base, left if one_by_one else min(10, left), seed)


def rows_of(data: Set, chosen: Labels, before: Snapshot) -> Rows:
    """The training rows at the positions `chosen`, in their order, on the model's grid."""
    names, numbers = np.unique(data.y_train[chosen], return_inverse=True)
    grid_rows = on_grid(data.x_train[chosen], before)
    return Rows(tuple(map(key, names)), numbers, lambda: iter([grid_rows]))


def learn(
    before: Snapshot, rows: Rows, method: Method[Any], params: Params, select: Rows | None = None
) -> Snapshot:
    """The version after one update; `select` are rows to choose parameters on."""
    data = {Split.NEW: rows} if select is None else {Split.NEW: rows, Split.SELECT: select}
    return method.run(before, data, params, Context()).after


def digests(version: Snapshot) -> tuple[str, str]:
    """Of the statistics ('' without) and of the head."""
    assert version.head is not None
    head = {"bias": version.head.bias.numpy(), "weight": version.head.weight.numpy()}
    return "" if version.statistics is None else version.statistics.digest(), array_digest(head)
