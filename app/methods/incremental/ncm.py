"""`ncm`: nearest class mean.

Every class is its mean; a row gets the class whose mean is nearest. Both measures are linear in the row:
`cos(x, mu) ~ x/|x| . mu/|mu|` and `-|x - mu|^2 / 2 = x . mu - |mu|^2 / 2 - |x|^2 / 2`, whose last term is
the same for every class. Means come from exact sums and counts, so learning in parts, in any order, gives
the same version. Mensink et al., "Distance-Based Image Classification" (2013).
Cost: one pass over the rows; stores a sum and a count per class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from app.methods.base import (
    Centroid,
    Context,
    Data,
    Head,
    Kind,
    Method,
    Outcome,
    Params,
    Reads,
    Snapshot,
    Split,
    Task,
)
from app.methods.parts.centroids import by_key, class_centroids, merge, need_centroids
from app.methods.parts.grid import unit
from app.methods.parts.reading import reported


class NcmParams(Params):
    """How near is measured."""

    metric: Literal["cosine", "euclidean"] = Field(
        "cosine", description="Nearness of a row to a mean: the angle between them, or their distance."
    )


def run(before: Snapshot, data: Data, params: NcmParams, ctx: Context) -> Outcome:
    """Add the rows to the means of their classes, new or known, and read the head off them; without rows,
    read it off the means that are known."""
    rows = data[Split.NEW]
    need_centroids(before)
    total = len(rows.labels)
    centroids = dict(before.centroids)
    if total or not centroids:
        blocks = reported(rows.blocks(), ctx, total, "means")
        centroids = merge(centroids, class_centroids(rows.labels, rows.classes, blocks))
    classes = by_key(centroids)
    head = nearest_mean(centroids, classes, params.metric, unit(before.grid))
    after = replace(before, classes=classes, centroids=centroids, head=head)
    return Outcome(after, {"metric": params.metric})


def nearest_mean(
    centroids: Mapping[str, Centroid], classes: tuple[str, ...], metric: str, step: float
) -> Head:
    """The head that picks the nearest mean; `step` is the value of one grid unit."""
    means = np.stack([centroids[name].mean() for name in classes]) * step
    if metric == "euclidean":
        bias = -(means * means).sum(axis=1) / 2
        return Head(torch.tensor(means, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32), False)
    lengths = np.sqrt((means * means).sum(axis=1, keepdims=True))
    weight = np.divide(means, lengths, out=np.zeros_like(means), where=lengths > 0)
    return Head(torch.tensor(weight, dtype=torch.float32), torch.zeros(len(classes)), normalise=True)


METHOD = Method(
    name="ncm",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=NcmParams,
    run=run,
    summary="Nearest class mean: one exact mean per class, nothing to train.",
    source="Mensink et al., Distance-Based Image Classification (TPAMI 2013)",
    remakes_head=True,
)
