"""What a version is measured by, from true and predicted classes; null where there are no rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]  # (rows,), indices into the class keys
Values = NDArray[np.float64]  # (rows,), in the unit of the targets
PerClass = Mapping[str, float | None]


def measure(
    truth: Labels,
    predicted: Labels,
    classes: Sequence[str],
    old: Collection[str] = (),
    earlier: Sequence[PerClass] = (),
) -> dict[str, Any]:
    """All metrics of a version as JSON values.

    `old` are the classes that its parent knew; `earlier` holds the `per_class` of the versions before it. A
    row whose truth is negative belongs to no class of the version: it is counted and otherwise left out.
    """
    known = truth >= 0
    truth, predicted = truth[known], predicted[known]
    is_old = np.array([key in old for key in classes], dtype=bool)[truth]
    per_class = accuracy_per_class(truth, predicted, classes)
    return {
        "rows": len(truth),
        "unknown_rows": int(np.count_nonzero(~known)),
        "accuracy": accuracy(truth, predicted),
        "accuracy_old": accuracy(truth[is_old], predicted[is_old]),
        "accuracy_new": accuracy(truth[~is_old], predicted[~is_old]),
        "forgetting": forgetting({key: per_class[key] for key in classes if key in old}, earlier),
        "per_class": per_class,
        "rows_per_class": dict(
            zip(classes, np.bincount(truth, minlength=len(classes)).tolist(), strict=True)
        ),
        "confused": confused_pairs(truth, predicted, classes),
    }


def measure_values(truth: Values, predicted: Values) -> dict[str, Any]:
    """Metrics of a regression: root of the mean square error, mean absolute error, share of variance
    explained (null where the truth does not vary)."""
    if not len(truth):
        return {"rows": 0, "r2": None, "rmse": None, "mae": None}
    errors = predicted - truth
    square, spread = float(np.mean(errors**2)), float(np.var(truth))
    return {
        "rows": len(truth),
        "r2": 1 - square / spread if spread else None,
        "rmse": square**0.5,
        "mae": float(np.mean(np.abs(errors))),
    }


def accuracy(truth: Labels, predicted: Labels) -> float | None:
    """Share of rows that got their own class."""
    return float(np.mean(truth == predicted)) if len(truth) else None


def accuracy_per_class(truth: Labels, predicted: Labels, classes: Sequence[str]) -> dict[str, float | None]:
    """For each class, the share of its own rows that got it."""
    rows = np.bincount(truth, minlength=len(classes))
    hits = np.bincount(truth[truth == predicted], minlength=len(classes))
    return {key: float(h / n) if n else None for key, h, n in zip(classes, hits, rows, strict=True)}


def accuracy_of(metrics: Mapping[str, Any], classes: Collection[str]) -> float | None:
    """Share of the rows of these classes that got theirs, from what `measure` gave."""
    rows: Mapping[str, int] = metrics.get("rows_per_class", {})  # none of a regression
    measured = [key for key in classes if rows.get(key)]
    right = sum(round(metrics["per_class"][key] * rows[key]) for key in measured)
    return right / sum(rows[key] for key in measured) if measured else None


def forgetting(now: PerClass, earlier: Sequence[PerClass]) -> float | None:
    """Mean over the classes of `now` of the best earlier accuracy minus the present one.

    Classes without a number on both sides are left out. Negative where old classes got better. Chaudhry et
    al., "Riemannian Walk for Incremental Learning" (2018).
    """
    losses = []
    for key, value in now.items():
        before = [known for version in earlier if (known := version.get(key)) is not None]
        if before and value is not None:
            losses.append(max(before) - value)
    return float(np.mean(losses)) if losses else None


def confused_pairs(
    truth: Labels, predicted: Labels, classes: Sequence[str], limit: int = 10
) -> list[dict[str, Any]]:
    """The most frequent mistakes: `class` taken for `predicted`, how often, and the share of its rows."""
    rows = np.bincount(truth, minlength=len(classes))
    wrong = truth != predicted
    pairs, counts = np.unique(np.stack([truth[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [
        {
            "class": classes[true],
            "predicted": classes[guess],
            "count": int(count),
            "share": float(count / rows[true]),
        }
        for (true, guess), count in zip(pairs[:, order].T, counts[order], strict=True)
    ]
