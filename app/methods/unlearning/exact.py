"""Exact forgetting: the version that training on what remains gives, without reading what remains.

A head that is a function of sums over its rows (centroids, integer statistics) and of settings forgets rows
by subtracting what they added and making the head anew: integers do not remember the order in which they
were summed, and the head is a rounded function of them, so statistics and weights are the same bytes. What
is chosen beside the head, as a ridge by cross-validation, is chosen again.

Cost: the forgotten rows, and one solve. Never an update of the old factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Centroid, Context, Data, Method, Outcome, Params, Rows, Snapshot, Split, Unfit
from app.methods.parts.centroids import add_by_class, by_key
from app.methods.parts.grid import LIMIT
from app.methods.parts.learning import sums_of
from app.methods.parts.statistics import NotContained, NotTogether, Statistics


class Misfit(ValueError):
    """The rows cannot have been learned by this version: what would be left is not a sum over rows."""


class NothingLeft(ValueError):
    """Without the rows the version has nothing to predict: no rows, or fewer than two classes."""


@dataclass(frozen=True)
class Sums:
    """What rows add up to; `statistics` None where the version they are taken for keeps none."""

    statistics: Statistics | None
    centroids: Mapping[str, Centroid]


def no_rows() -> Rows:
    """What a method is given to make its head of the sums alone."""
    return Rows((), np.zeros(0, np.int64), _nothing)


def forget(
    version: Snapshot,
    gone: Rows,
    method: Method[Any],
    params: Params,
    ctx: Context,
    select: Rows | None = None,
) -> Outcome:
    """The version without the rows `gone`, of a method whose head is a function of sums.

    `select`: rows to choose parameters on again, none of the forgotten among them. Raises `Misfit`,
    `NothingLeft`, and `Unfit` where what remains has no head of this kind.
    """
    return remade(without(version, sums(version, gone, ctx)), method, params, ctx, select)


def sums(version: Snapshot, rows: Rows, ctx: Context) -> Sums:
    """What rows add to the statistics and centroids of a version, in one pass."""
    if version.statistics is not None:
        both = sums_of(version, rows, ctx, len(rows.labels))
        return Sums(both.statistics, both.centroids)
    found: dict[str, Centroid] = {}
    counts = np.bincount(rows.labels, minlength=len(rows.classes))
    totals: NDArray[np.int64] | None = None
    at = 0
    for block in rows.blocks():
        if totals is None:
            totals = np.zeros((len(rows.classes), block.shape[1]), np.int64)
        add_by_class(totals, block, rows.labels[at : at + len(block)])
        at += len(block)
    if at != len(rows.labels):
        raise ValueError(f"{len(rows.labels)} labels for {at} rows")
    if totals is not None:
        found = {
            name: Centroid(totals[i], int(counts[i])) for i, name in enumerate(rows.classes) if counts[i]
        }
    return Sums(None, found)


def without(version: Snapshot, gone: Sums) -> Snapshot:
    """The version less these sums, without a head. A class whose last row goes, goes.

    Raises `Misfit` where sums can tell that they do not contain these, and `NothingLeft`.
    """
    regression = version.target is not None
    centroids = {} if regression else less(version.centroids, gone.centroids)
    statistics = version.statistics
    if statistics is not None and gone.statistics is not None:
        statistics = subtracted(statistics, gone.statistics)
    classes = () if regression else by_key(centroids)
    if regression:
        if statistics is None or not statistics.rows:
            raise NothingLeft("no row would be left")
    elif len(classes) < 2:
        raise NothingLeft("fewer than two classes would be left")
    elif statistics is not None and _counts(statistics) != {name: c.count for name, c in centroids.items()}:
        raise Misfit("statistics and centroids of this version would be of other rows")
    return replace(version, classes=classes, centroids=centroids, statistics=statistics, head=None)


def subtracted(statistics: Statistics, gone: Statistics) -> Statistics:
    """Statistics less those of rows among them; raises `Misfit`."""
    try:
        return statistics.subtract(gone)
    except (NotContained, NotTogether) as error:
        raise Misfit(f"{error}") from None


def less(known: Mapping[str, Centroid], gone: Mapping[str, Centroid]) -> dict[str, Centroid]:
    """Centroids less those of rows among them; raises `Misfit`."""
    left = dict(known)
    for name, centroid in gone.items():
        if name not in left:
            raise Misfit("the rows are of a class that this version does not know")
        rest = Centroid(left[name].sum - centroid.sum, left[name].count - centroid.count)
        if rest.count < 0 or (np.abs(rest.sum) > rest.count * LIMIT).any():
            raise Misfit("the rows are not among those that this version learned")
        left[name] = rest
        if not rest.count:
            del left[name]
    return left


def remade(
    cleaned: Snapshot, method: Method[Any], params: Params, ctx: Context, select: Rows | None = None
) -> Outcome:
    """The head that a method makes of sums alone, everything that it chooses chosen again."""
    data = {Split.NEW: no_rows()} | ({} if select is None else {Split.SELECT: select})
    return method.run(cleaned, data, params, ctx)


def from_rows(
    start: Snapshot,
    everything: Rows,
    method: Method[Any],
    params: Params,
    ctx: Context,
    select: Rows | None = None,
) -> Outcome:
    """The version that a method gives which is a function of sums, from all its rows at once."""
    data: Data = {Split.NEW: everything} | ({} if select is None else {Split.SELECT: select})
    return method.run(start, data, params, ctx)


def learned_again(
    cleaned: Snapshot,
    own: Rows,
    method: Method[Any],
    params: Params,
    ctx: Context,
    select: Rows | None = None,
) -> Outcome:
    """The version that a method gives which was fitted to the rows of its own update, `own`, those left.

    All that a method reads of the version it builds on are sums: those of its own result less its own rows'.
    `cleaned` are the sums of the result. Raises `Misfit`, `NothingLeft` and `Unfit`.
    """
    if not len(own.labels):
        raise NothingLeft("no row of the version's own update would be left")
    known = less(cleaned.centroids, sums(replace(cleaned, statistics=None), own, ctx).centroids)
    before = replace(cleaned, classes=by_key(known), centroids=known, statistics=None, head=None)
    data: Data = {Split.NEW: own} | ({} if select is None else {Split.SELECT: select})
    outcome = method.run(before, data, params, ctx)
    if outcome.after.classes != cleaned.classes:
        raise Unfit("learning the rows that remain again gives other classes")
    return outcome


@dataclass(frozen=True)
class Identity:
    """«Old sums = new sums + those of the forgotten rows», in integers, each looked at."""

    statistics: bool | None  # None where the version keeps none
    centroids: bool
    rows_before: int
    rows_after: int

    @property
    def holds(self) -> bool:
        return self.statistics is not False and self.centroids


def identity(old: Snapshot, new: Snapshot, again: Sums, rows: int) -> Identity:
    """Compare a version with its replacement plus `rows` forgotten rows, whose sums were taken `again`."""
    before, after = _rows(old), _rows(new)
    whole = None
    if old.statistics is not None and new.statistics is not None and again.statistics is not None:
        whole = same(new.statistics.merge(again.statistics), old.statistics)
    added = dict(new.centroids)
    for name, centroid in again.centroids.items():
        added[name] = added[name] + centroid if name in added else centroid
    centroids = added.keys() == old.centroids.keys() and all(
        added[name].count == one.count and np.array_equal(added[name].sum, one.sum)
        for name, one in old.centroids.items()
    )
    return Identity(whole, centroids and before == after + rows, before, after)


def same(one: Statistics, other: Statistics) -> bool:
    """Whether every integer is."""
    arrays = one.arrays(), other.arrays()
    return arrays[0].keys() == arrays[1].keys() and all(
        np.array_equal(values, arrays[1][name]) for name, values in arrays[0].items()
    )


def _rows(version: Snapshot) -> int:
    if version.target is not None:
        return version.statistics.rows if version.statistics is not None else 0
    return sum(centroid.count for centroid in version.centroids.values())


def _counts(statistics: Statistics) -> dict[str, int]:
    return dict(zip(statistics.classes, statistics.counts.tolist(), strict=True))


def _nothing() -> Iterator[NDArray[Any]]:
    return iter(())
