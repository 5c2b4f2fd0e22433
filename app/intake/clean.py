"""Chunks checked: finite numbers, labels as keys, persons as keyed digests; what was found is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from app import ids
from app.config import Limits
from app.errors import AppError, DimensionMismatch, Fault, NonFinite, SubjectErased, ValidationFailed
from app.intake.labels import Labels
from app.intake.persons import Persons
from app.intake.rows import SHOWN, Chunk, is_image

DUPLICATES_AMONG = 100_000  # rows up to which equal ones are counted
SPLITS: dict[Any, int] = {"train": 0, "eval": 1, 0: 0, 1: 1}

Reason = Literal["non-finite", "wrong-dimension", "subject-erased"]
ERRORS: dict[Reason, tuple[type[AppError], str]] = {
    "non-finite": (NonFinite, "a value is missing, not finite, or too large for float32"),
    "wrong-dimension": (DimensionMismatch, "x has another width than the first row"),
    "subject-erased": (
        SubjectErased,
        "names an erased person or sample; if they agreed again, send reconsent=true (--reconsent)",
    ),
}


@dataclass(frozen=True)
class Options:
    """What the query says of the whole upload."""

    name: str = ""
    label: str | None = None  # of every row
    split: Literal["train", "eval"] | None = None  # of every row
    on_invalid: Literal["reject", "quarantine"] = "reject"
    reconsent: bool = False
    for_forget: bool = False  # sent again to be forgotten: whom the rows name is not kept


@dataclass(frozen=True)
class Rows:
    """Rows that are taken. `labels` index `Cleaner.names` as it stands then; -1 is none."""

    positions: NDArray[np.int64]
    x: NDArray[Any]  # float32, or uint8 images
    labels: NDArray[np.int32]
    split: NDArray[np.uint8]  # 0 train, 1 eval
    targets: NDArray[np.float64] | None
    samples: Sequence[str | None]  # keyed digests, one a row; empty where the file has none
    subjects: Sequence[Sequence[str]]


@dataclass
class Finding:
    """How many rows share a reason, and the first of them."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, rows: Iterable[int]) -> None:
        for row in rows:
            self.count += 1
            if len(self.rows) < SHOWN:
                self.rows.append(int(row))


class Cleaner:
    """Checks the chunks of one upload in order and remembers what it found."""

    def __init__(
        self, options: Options, limits: Limits, digest: Callable[[str], str], erased: Mapping[str, UUID]
    ) -> None:
        """`erased`: `subject:<digest>` or `sample:<digest>` -> the forget request that erased it."""
        self.options = options
        self.shape: tuple[int, ...] | None = None
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.total = 0
        self.has_labels = options.label is not None
        self.has_targets = False
        self.findings: dict[Reason, Finding] = {}
        self.declared: dict[str, None] = {}
        self.duplicates: int | None = 0
        self.evidence: dict[UUID, None] = {}  # the forget requests that erased persons whom rows name
        self._erased = erased
        self._persons = Persons(digest, limits.subjects_per_row)
        self._labels = Labels(limits.classes)
        self._constant: NDArray[np.int64] | None = None  # features that never changed yet
        self._first_row: NDArray[Any] | None = None
        self._hashes: set[int] = set()

    @property
    def names(self) -> list[str]:
        """Label keys in the order they were met."""
        return self._labels.names

    @property
    def is_refused(self) -> bool:
        """Whether a row was found that fails the batch, so that nothing needs to be stored."""
        return bool(self.findings) and self.options.on_invalid == "reject"

    @property
    def constant(self) -> list[int]:
        """Features with one value in all rows."""
        return [] if self._constant is None else self._constant.tolist()

    def clean(self, chunk: Chunk) -> Rows:
        """The rows of a chunk that are taken; raises for what no policy can mend."""
        self.total = max(self.total, *(int(p[-1]) + 1 for p in (chunk.positions, chunk.wrong) if len(p)))
        self.declared.update(dict.fromkeys(chunk.declared))
        self._find("wrong-dimension", chunk.wrong)
        if not len(chunk.x):
            return _nothing(chunk)
        x = self._inputs(chunk.x)
        samples = () if self.options.for_forget else self._persons.samples(chunk)
        subjects = () if self.options.for_forget else self._persons.subjects(chunk)
        kept = self._usable(chunk, x, samples, subjects)
        rows = Rows(
            positions=chunk.positions[kept],
            x=x if kept.all() else x[kept],
            labels=self._label_indices(chunk)[kept],
            split=self._splits(chunk)[kept],
            targets=None if chunk.target is None else chunk.target[kept],
            samples=[one for one, keep in zip(samples, kept, strict=True) if keep] if samples else (),
            subjects=[one for one, keep in zip(subjects, kept, strict=True) if keep] if subjects else (),
        )
        self._observe(rows)
        return rows

    def finish(self) -> None:
        """Raise for what was found, if the policy says so, and for sample ids that came twice."""
        if self.is_refused:
            reason, finding = next(iter(self.findings.items()))
            kind, what = ERRORS[reason]
            faults = [Fault(f"/x/{row}", kind.code, f"row {row}: {what}") for row in finding.rows]
            raise kind(
                f"{finding.count} rows are refused, the first is row {finding.rows[0]}: {what}",
                errors=faults,
                related=[ids.forget_path(id) for id in islice(self.evidence, SHOWN)]
                if kind is SubjectErased
                else (),
            )
        self._persons.refuse_repeated()

    def _inputs(self, x: NDArray[Any]) -> NDArray[Any]:
        dtype: np.dtype[Any] = np.dtype(np.uint8 if is_image(x.dtype, x.ndim) else np.float32)
        if self.shape is None:
            self.shape, self.dtype = x.shape[1:], dtype
        if dtype != self.dtype:
            raise DimensionMismatch("some rows are images of whole numbers, others are not", pointer="/x")
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(x, dtype=dtype)

    def _usable(
        self,
        chunk: Chunk,
        x: NDArray[Any],
        samples: Sequence[str | None],
        subjects: Sequence[Sequence[str]],
    ) -> NDArray[np.bool_]:
        finite = _finite_rows(x)
        if chunk.target is not None:
            finite &= np.isfinite(chunk.target)
        self._find("non-finite", chunk.positions[~finite])
        if not self._erased:
            return finite
        erased = np.array([self._is_erased(samples, subjects, row) for row in range(len(x))])
        if self.options.reconsent:
            return finite
        self._find("subject-erased", chunk.positions[erased & finite])
        usable: NDArray[np.bool_] = finite & ~erased
        return usable

    def _is_erased(self, samples: Sequence[str | None], subjects: Sequence[Sequence[str]], row: int) -> bool:
        targets = [f"subject:{digest}" for digest in subjects[row]] if subjects else []
        if samples and samples[row]:
            targets.append(f"sample:{samples[row]}")
        requests = [self._erased[target] for target in targets if target in self._erased]
        self.evidence.update(dict.fromkeys(requests))
        return bool(requests)

    def _label_indices(self, chunk: Chunk) -> NDArray[np.int32]:
        count = len(chunk.positions)
        if chunk.label is None:
            index = -1 if self.options.label is None else self._labels[self.options.label]
            return np.full(count, index, dtype=np.int32)
        if self.options.label is not None:
            raise ValidationFailed(
                "the file has labels of its own: leave the field label out", pointer="label"
            )
        self.has_labels = True
        try:
            return np.fromiter(map(self._labels.__getitem__, chunk.label), dtype=np.int32, count=count)
        except (TypeError, ValidationFailed):  # a list or an object cannot be looked up
            raise _wrong_labels(chunk, self._labels) from None

    def _splits(self, chunk: Chunk) -> NDArray[np.uint8]:
        usual = SPLITS[self.options.split or "train"]
        if chunk.split is None:
            return np.full(len(chunk.positions), usual, dtype=np.uint8)
        if self.options.split is not None:
            raise ValidationFailed(
                "the file has splits of its own: leave the field split out", pointer="split"
            )
        found = np.full(len(chunk.positions), usual, dtype=np.uint8)
        for at, split in enumerate(chunk.split):
            if split is None or split == "":
                continue
            if not isinstance(split, str | int) or isinstance(split, bool) or split not in SPLITS:
                row = chunk.positions[at]
                raise ValidationFailed(f"row {row}: split is train or eval", pointer=f"/split/{row}")
            found[at] = SPLITS[split]
        return found

    def _observe(self, rows: Rows) -> None:
        self.has_targets |= rows.targets is not None
        if rows.samples:
            self._persons.remember(rows.samples, rows.positions)
        if not len(rows.x):
            return
        if rows.x.ndim == 2:
            self._compare(rows.x)
        if self.total > DUPLICATES_AMONG:
            self.duplicates = None
            self._hashes.clear()
        elif self.duplicates is not None:
            hashes = [hash(row.tobytes()) for row in rows.x]
            before = len(self._hashes)
            self._hashes.update(hashes)
            self.duplicates += len(hashes) - (len(self._hashes) - before)

    def _compare(self, x: NDArray[Any]) -> None:
        if self._first_row is None:
            self._first_row = x[0].copy()
            self._constant = np.arange(x.shape[1])
        assert self._constant is not None
        if len(self._constant):
            same = (x[:, self._constant] == self._first_row[self._constant]).all(axis=0)
            self._constant = self._constant[same]

    def _find(self, reason: Reason, rows: Sequence[int] | NDArray[np.int64]) -> None:
        if len(rows):
            self.findings.setdefault(reason, Finding()).add(rows)


def _finite_rows(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows without NaN and infinity. One sum says it of all: it would be neither finite."""
    with np.errstate(all="ignore"):
        if x.dtype.kind != "f" or np.isfinite(np.add.reduce(x, axis=None)):
            return np.ones(len(x), dtype=bool)
    finite: NDArray[np.bool_] = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    return finite


def _wrong_labels(chunk: Chunk, labels: Labels) -> ValidationFailed:
    """The error for the rows of a chunk whose labels cannot be taken, the first of them named."""
    faults: list[Fault] = []
    for row, label in zip(chunk.positions.tolist(), chunk.label or (), strict=True):
        try:
            labels[label]
        except TypeError:
            faults.append(_label_fault(row, "a label is a string or an integer"))
        except ValidationFailed as error:
            faults.append(_label_fault(row, error.detail))
        if len(faults) == SHOWN:
            break
    return ValidationFailed(faults[0].message, errors=faults)


def _label_fault(row: int, message: str) -> Fault:
    return Fault(f"/label/{row}", ValidationFailed.code, f"row {row}: {message}")


def _nothing(chunk: Chunk) -> Rows:
    none = np.empty(0)
    return Rows(none.astype(np.int64), chunk.x, none.astype(np.int32), none.astype(np.uint8), None, (), ())
