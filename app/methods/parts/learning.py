"""From rows to the statistics and centroids of the next version, in one pass over the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.methods import networks
from app.methods.base import Centroid, Context, Memory, Outcome, Rows, Snapshot, Unfit
from app.methods.parts import statistics as exact
from app.methods.parts.centroids import add_by_class, merge, need_centroids
from app.methods.parts.closed_form import Degenerate, LinearHead
from app.methods.parts.expansion import expand, longest_row
from app.methods.parts.reading import reported
from app.methods.parts.rounding import Undecided
from app.methods.parts.statistics import NotTogether, Statistics, TooLarge
from app.methods.parts.targets import OffGrid, on_grid

# Of a head that is solved: the statistics packed three times (4 each: the parent's, the new rows', their
# sum), the Gram, the factor. As much is taken where k is chosen by cross-validation.
SOLVE = Memory(square=34, table=400, per_feature=24 * 2**10, per_class=40 * 2**10)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Learned:
    """What new rows add up to."""

    statistics: Statistics
    centroids: dict[str, Centroid]


def width_of(version: Snapshot) -> int:
    """Columns of the features that the model's statistics are of."""
    if version.expansion is not None:
        return version.expansion.width
    return networks.width(version.network, version.input)


def sums_of(version: Snapshot, rows: Rows, ctx: Context, total: int) -> Learned:
    """Statistics and centroids of these rows alone; of a regression where they have targets.

    Every row counts one unit of `total`. Raises `Unfit` where they cannot be summed exactly.
    """
    targets = None if rows.targets is None else _targets(version, rows.targets)
    classes, labels = (rows.classes, rows.labels) if targets is None else (("",), np.zeros_like(rows.labels))
    inputs = networks.width(version.network, version.input)
    sums = np.zeros((len(classes), inputs), np.int64)
    blocks = _expanded(version, rows, labels, sums, ctx, total)
    try:
        found = exact.accumulate(classes, labels, blocks, width_of(version), version.expansion, targets)
    except TooLarge as error:
        raise Unfit(f"{error}", "/datasets") from None
    counts = np.bincount(labels, minlength=len(classes))
    centroids = {
        name: Centroid(sums[i], int(counts[i]))
        for i, name in enumerate(classes)
        if targets is None and counts[i]
    }
    return Learned(found, centroids)


def learned(before: Snapshot, rows: Rows, ctx: Context, *, regression: bool = False) -> Learned:
    """The parent's statistics and centroids with these rows added. Progress: the rows of `len + 1` units.

    No rows are allowed: the head is then made anew from what is known. Raises `Unfit`.
    """
    if before.classes:
        need_centroids(before)
    if (rows.targets is None) == regression and len(rows.labels):
        raise Unfit(
            "a regression learns from rows with targets, a classifier from rows with labels", "/datasets"
        )
    known = _known(before, regression)
    if not len(rows.labels):
        return Learned(known, dict(before.centroids))
    new = sums_of(before, rows, ctx, len(rows.labels) + 1)
    try:
        return Learned(known.merge(new.statistics), merge(before.centroids, new.centroids))
    except TooLarge as error:
        raise Unfit(f"{error}", "/datasets") from None


def need_memory(before: Snapshot, rows: Rows, memory: Memory, ctx: Context, *, expanded: bool = True) -> None:
    """Raise `Unfit` where `memory`, of the classes known and new, is more than the context allows.

    Features are those of the model's expansion, where it has one and `expanded` is left.
    """
    classes = len({*before.classes, *rows.classes})
    width = width_of(before) if expanded else networks.width(before.network, before.input)
    if short := memory.shortage(width, classes, ctx.memory):
        raise Unfit(short, "/method/name")


def solved_head(make: Callable[[], Result]) -> Result:
    """The result of a closed form; where there is none, the request is `Unfit`."""
    try:
        return make()
    except Degenerate as error:
        raise Unfit(f"{error}", "/datasets") from None
    except Undecided as error:
        raise Unfit(f"{error}", "/method") from None


def outcome(
    before: Snapshot, found: Learned, head: LinearHead, rows: int, ctx: Context, **report: Any
) -> Outcome:
    """The next version, and the end of the progress."""
    ctx.report(rows + 1, rows + 1, "done")
    after = replace(
        before,
        classes=found.statistics.classes if found.statistics.targets is None else (),
        centroids=found.centroids,
        statistics=found.statistics,
        head=head.head(expanded=before.expansion is not None),
    )
    report |= {"rows": found.statistics.rows, "width": found.statistics.width}
    if head.ridge_exponent is not None:
        report["ridge_exponent"] = head.ridge_exponent
    if head.error_bound is not None:
        report["error_bound"] = head.error_bound
    return Outcome(after, report)


def _known(before: Snapshot, regression: bool) -> Statistics:
    """What the parent's ancestry adds up to; nothing for a model that knows nothing yet."""
    if before.statistics is None:
        if before.classes or before.head is not None:
            raise Unfit("this version has no statistics of the rows it was made from", "/base")
        return exact.empty(width_of(before), before.expansion, targets=regression)
    known = before.statistics
    try:
        known.check_features(width_of(before), before.expansion, regression)
    except NotTogether as error:
        raise Unfit(f"the statistics of this version are of other features: {error}", "/base") from None
    if not regression and set(known.classes) != set(before.classes):
        raise Unfit("the statistics of this version are of other classes than it knows", "/base")
    return known


def _expanded(
    version: Snapshot,
    rows: Rows,
    labels: NDArray[np.int64],
    sums: NDArray[np.int64],
    ctx: Context,
    total: int,
) -> Iterator[NDArray[np.integer[Any]]]:
    """Blocks as the head reads them; adds them to the centroids' `sums` (classes, inputs) on the way."""
    longest = longest_row(sums.shape[1], version.grid == "normalised")
    at = 0
    for block in reported(rows.blocks(), ctx, total, "statistics"):
        add_by_class(sums, block, labels[at : at + len(block)])
        at += len(block)
        yield block if version.expansion is None else expand(block, version.expansion, longest)


def _targets(version: Snapshot, targets: NDArray[np.float64]) -> NDArray[np.int64]:
    if version.target is None:
        raise Unfit("this model has no grid for targets", "/datasets")
    try:
        return on_grid(targets, version.target)
    except OffGrid as error:
        raise Unfit(f"{error}", "/datasets") from None
