"""Sufficient statistics as exact integers: the one store that every closed-form head reads.

Counts, sums, sums of squares per class and one Gram matrix over all rows, of integer features below 2**20;
for regression also the sums that need the target. float64 holds integers up to 2**53 exactly, so while every
partial sum stays below that, any BLAS, thread count, block size or order gives the same bytes; merging and
subtracting are exact.

The bound: every partial sum is a sum over some of the rows. By Cauchy-Schwarz it is at most the largest sum
of squares of a column over those rows, targets included, and so at most the largest over all rows (of a
column of integers the sum is at most the sum of squares). `accumulate` and `merge` refuse (`TooLarge`) where
that would reach 2**53.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk
from scipy.sparse import csr_array

from app.methods.parts.digest import array_digest, label_keys
from app.methods.parts.expansion import Expansion
from app.methods.parts.packing import Integers as Integers
from app.methods.parts.packing import pack, packed_length, row_starts, unpack
from app.methods.parts.targets import LIMIT, TargetSums

EXACT = 2**53
LARGEST = LIMIT + 1  # features and targets stay below
BLOCK = 4_096  # rows of one product: what they add stays below 2**12 * 2**40


class TooLarge(ValueError):
    """More rows, or larger values, than float64 sums exactly."""


class NotContained(ValueError):
    """What should be subtracted was never added."""


class NotTogether(ValueError):
    """Statistics of different features do not add up."""


@dataclass(frozen=True)
class Statistics:
    """Sums over a multiset of labelled rows; classes stand in the order of their label keys and have rows.

    A regression has one class, the empty key.
    """

    classes: tuple[str, ...]  # label keys in byte order
    counts: Integers  # (classes,)
    sums: Integers  # (classes, width)
    squares: Integers  # (classes, width), of each feature by itself
    gram: Integers  # (width * (width + 1) / 2,), `packing`: sum over all rows of x x^T
    expansion: Expansion | None = None  # of the features that were summed
    targets: TargetSums | None = None

    @property
    def width(self) -> int:
        return int(self.sums.shape[1])

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def total(self) -> Integers:
        """(width,): the sum of all rows."""
        total: Integers = self.sums.sum(axis=0)
        return total

    def diagonal(self) -> Integers:
        """(width,): the sum of squares of each feature."""
        diagonal: Integers = self.gram[row_starts(self.width)]
        return diagonal

    def full_gram(self) -> NDArray[np.float64]:
        """(width, width) float64, each entry an exact integer. Memory: `8 width**2` bytes."""
        return unpack(self.gram, self.width)

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both multisets together. Raises `TooLarge` and `NotTogether`."""
        a, b = _aligned(self, other)
        targets = None
        if a.targets is not None and b.targets is not None:
            targets = a.targets + b.targets
        merged = replace(
            a,
            counts=a.counts + b.counts,
            sums=a.sums + b.sums,
            squares=a.squares + b.squares,
            gram=a.gram + b.gram,
            targets=targets,
        )
        merged.check()
        return merged

    def subtract(self, other: Statistics) -> Statistics:
        """The statistics without `other`'s rows; a class whose last row goes, goes.

        Raises `NotContained` where what is left cannot be sums over rows (a count or sum of squares below
        zero, something left of a class without rows), and `NotTogether`.
        """
        a, b = _aligned(self, other)
        targets = None
        if a.targets is not None and b.targets is not None:
            targets = a.targets - b.targets
        counts, squares, sums = a.counts - b.counts, a.squares - b.squares, a.sums - b.sums
        empty = counts == 0
        if (counts < 0).any() or (squares < 0).any() or sums[empty].any() or squares[empty].any():
            raise NotContained("these rows are not in the statistics")
        if targets is not None and targets.squares < 0:
            raise NotContained("these rows are not in the statistics")
        left = replace(a, counts=counts, sums=sums, squares=squares, gram=a.gram - b.gram, targets=targets)
        if not left.rows and (left.gram.any() or (targets is not None and targets.any())):
            raise NotContained("these rows are not in the statistics")
        touched = (b.counts != 0) | b.sums.any(axis=1) | b.squares.any(axis=1)
        spread = counts[touched], sums[touched], squares[touched]  # of the other classes it is as it was
        if (squares.sum(axis=0) != left.diagonal()).any() or _spread_below_zero(*spread):
            raise NotContained("these rows are not in the statistics")
        return left.keep([key for key, gone in zip(a.classes, empty, strict=True) if not gone])

    def keep(self, classes: Sequence[str]) -> Statistics:
        """Only these rows of the class tables; the Gram is left as it is."""
        place = {key: i for i, key in enumerate(self.classes)}
        index = np.array([place[key] for key in classes], np.int64)
        return replace(
            self,
            classes=tuple(classes),
            counts=self.counts[index],
            sums=self.sums[index],
            squares=self.squares[index],
        )

    def check_features(self, width: int, expansion: Expansion | None, targets: bool) -> None:
        """Raise `NotTogether` where these are not statistics of such features and targets."""
        if self.width != width:
            raise NotTogether(f"statistics of width {width} and {self.width} do not belong together")
        if self.expansion != expansion:
            raise NotTogether("statistics of different expansions do not belong together")
        if (self.targets is not None) != targets:
            raise NotTogether("statistics with and without targets do not belong together")

    def check(self) -> None:
        """Raise `TooLarge` where an entry could no longer be exact in float64."""
        largest = int(self.diagonal().max(initial=0))
        if self.targets is not None:
            largest = max(largest, self.targets.squares)
        if max(largest, self.rows) >= EXACT:
            raise TooLarge(f"{self.rows:,} rows of this size add up to 2**53 or more: no longer exact")

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What is stored, and what the digest is taken over."""
        arrays: dict[str, NDArray[np.generic]] = {
            "classes": label_keys(self.classes),
            "counts": self.counts,
            "gram": self.gram,
            "squares": self.squares,
            "sums": self.sums,
        }
        if self.expansion is not None:
            arrays["expansion"] = np.array([self.expansion.width, self.expansion.seed], np.int64)
        if self.targets is not None:
            arrays |= self.targets.arrays()
        return arrays

    def digest(self) -> str:
        """The fingerprint of the multiset of rows."""
        return array_digest(self.arrays())


def from_arrays(arrays: dict[str, NDArray[np.generic]]) -> Statistics:
    """The statistics that `Statistics.arrays` came from."""
    expansion = None
    if "expansion" in arrays:
        width, seed = (int(value) for value in arrays["expansion"].tolist())
        expansion = Expansion(width=width, seed=seed)
    numbers = {name: arrays[name].astype(np.int64) for name in ("counts", "sums", "squares", "gram")}
    return Statistics(
        classes=_keys(arrays["classes"].tobytes()),
        **numbers,
        expansion=expansion,
        targets=TargetSums.of(arrays) if "target_cross" in arrays else None,
    )


def empty(width: int, expansion: Expansion | None = None, *, targets: bool = False) -> Statistics:
    """The statistics of no row."""
    table = np.zeros((0, width), dtype=np.int64)
    packed = np.zeros(packed_length(width), np.int64)
    sums = TargetSums(np.zeros(width, np.int64), 0, 0) if targets else None
    return Statistics((), np.zeros(0, np.int64), table, table.copy(), packed, expansion, sums)


def accumulate(
    classes: Sequence[str],
    labels: Integers,
    blocks: Iterable[NDArray[np.integer]],
    width: int,
    expansion: Expansion | None = None,
    targets: Integers | None = None,
) -> Statistics:
    """Sum rows that come in blocks of (b, width) integers; `labels` (rows,) index `classes`, in byte order.

    Rows are those of `expansion` already; `targets` (rows,) are integers. Classes without rows are left out.
    Cost: `rows * width**2` multiply-adds; memory `16 width**2` bytes. Raises `TooLarge`.
    """
    if list(classes) != sorted(set(classes), key=str.encode):
        raise ValueError("classes must stand in the order of their keys' bytes, each once")
    count, at = len(classes), 0
    gram = np.zeros((width, width), order="F")
    sums, squares = np.zeros((count, width)), np.zeros((count, width))
    diagonal, cross = np.zeros(width), np.zeros(width)
    if targets is not None:
        _check_targets(targets)
    for block in blocks:
        for first in range(0, len(block), BLOCK):
            x = block[first : first + BLOCK].astype(np.float64)
            if np.abs(x).max(initial=0.0) >= LARGEST:
                raise TooLarge(f"a feature is {LARGEST:,} or more")
            own = labels[at : at + len(x)]
            onehot = csr_array((np.ones(len(x)), (own, np.arange(len(x)))), shape=(count, len(x)))
            square = x * x
            diagonal += square.sum(axis=0)  # both terms are below 2**53, where rounding would be seen
            if diagonal.max(initial=0.0) >= EXACT:
                raise TooLarge("these rows add up to 2**53 or more: they cannot be summed exactly")
            gram = dsyrk(1.0, x.T, beta=1.0, c=gram, overwrite_c=True)  # the upper triangle
            sums += onehot @ x
            squares += onehot @ square
            if targets is not None:
                cross += x.T @ targets[at : at + len(x)].astype(np.float64)
            at += len(x)
    if at != len(labels):
        raise ValueError(f"{len(labels)} labels for {at} rows")
    found = Statistics(
        tuple(classes),
        np.bincount(labels, minlength=count).astype(np.int64),
        sums.astype(np.int64),
        squares.astype(np.int64),
        pack(gram),
        expansion,
        None if targets is None else TargetSums.from_rows(cross.astype(np.int64), targets),
    )
    return found.keep([key for key, n in zip(classes, found.counts, strict=True) if n])


def _check_targets(targets: Integers) -> None:
    if np.abs(targets).max(initial=0) >= LARGEST:
        raise TooLarge(f"a target is {LARGEST:,} grid steps or more")
    if float((targets.astype(np.float64) ** 2).sum()) >= EXACT:
        raise TooLarge("these targets add up to 2**53 or more: they cannot be summed exactly")


def _aligned(a: Statistics, b: Statistics) -> tuple[Statistics, Statistics]:
    a.check_features(b.width, b.expansion, b.targets is not None)
    union = tuple(sorted({*a.classes, *b.classes}, key=str.encode))
    return _spread(a, union), _spread(b, union)


def _spread(s: Statistics, classes: tuple[str, ...]) -> Statistics:
    if s.classes == classes:
        return s
    place = {key: i for i, key in enumerate(classes)}
    index = np.array([place[key] for key in s.classes], np.int64)
    counts = np.zeros(len(classes), np.int64)
    sums, squares = (np.zeros((len(classes), s.width), np.int64) for _ in range(2))
    counts[index], sums[index], squares[index] = s.counts, s.sums, s.squares
    return replace(s, classes=classes, counts=counts, sums=sums, squares=squares)


def _keys(raw: bytes) -> tuple[str, ...]:
    keys, at = [], 0
    while at < len(raw):
        end = at + 8 + int.from_bytes(raw[at : at + 8], "little")
        keys.append(raw[at + 8 : end].decode())
        at = end
    return tuple(keys)


def _spread_below_zero(counts: Integers, sums: Integers, squares: Integers) -> bool:
    """Whether `n squares < sums^2` anywhere, which by Cauchy-Schwarz no rows have; in Python's integers."""
    spread = counts.astype(object)[:, None] * squares.astype(object) - sums.astype(object) ** 2
    return bool((spread < 0).any())
