"""Sums and counts per class of grid rows: exact integers, so merging and subtracting are exact too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Centroid, Snapshot, Unfit
from app.methods.parts.grid import LIMIT

MOST_ROWS = 2**53 // (
    LIMIT + 1
)  # sums of so many int16 values are exact in float64, in which means are taken


def class_centroids(
    labels: NDArray[np.int64], classes: Sequence[str], blocks: Iterable[NDArray[np.int16]]
) -> dict[str, Centroid]:
    """The centroid of every class, from `labels` (rows,) and `blocks` (b, width) of the same rows.

    Raises `Unfit` where there are no rows, a class has none, or one has more than float64 can sum exactly.
    """
    if len(labels) == 0:
        raise Unfit("the data has no rows to learn from", "/datasets")
    counts = np.bincount(labels, minlength=len(classes))
    if empty := [name for name, count in zip(classes, counts, strict=True) if count == 0]:
        raise Unfit(f"class {empty[0]!r} has no rows", "/datasets")
    sums: NDArray[np.int64] | None = None
    read = 0
    for block in blocks:
        if sums is None:
            sums = np.zeros((len(classes), block.shape[1]), np.int64)
        add_by_class(sums, block, labels[read : read + len(block)])
        read += len(block)
    if sums is None or read != len(labels):
        raise ValueError(f"{len(labels)} labels for {read} rows")
    return merge({}, {name: Centroid(sums[i], int(counts[i])) for i, name in enumerate(classes)})


def add_by_class(sums: NDArray[np.int64], block: NDArray[np.int16], labels: NDArray[np.int64]) -> None:
    """Add each row of `block` (rows, width) to the row of `sums` (classes, width) that its label names."""
    if len(block) == 0:
        return
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums[present] += np.add.reduceat(block[order].astype(np.int64), starts, axis=0)


def merge(known: Mapping[str, Centroid], new: Mapping[str, Centroid]) -> dict[str, Centroid]:
    """Both, a class of both by sum and count; refuses more rows than stay exact."""
    merged = dict(known)
    for name, centroid in new.items():
        merged[name] = merged[name] + centroid if name in merged else centroid
        if merged[name].count > MOST_ROWS:
            raise Unfit(f"class {name!r} would have more than {MOST_ROWS:,} rows", "/datasets")
    return merged


def by_key(names: Mapping[str, object]) -> tuple[str, ...]:
    """Label keys in the order of their UTF-8 bytes, the order of a version's classes."""
    return tuple(sorted(names, key=lambda name: name.encode()))


def need_centroids(before: Snapshot) -> None:
    """Raise `Unfit` where a known class has none, as in a version that was imported without them."""
    if missing := [name for name in before.classes if name not in before.centroids]:
        raise Unfit(f"class {missing[0]!r} of this version has no centroid to build on", "/base")
