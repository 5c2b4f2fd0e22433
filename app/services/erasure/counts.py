"""What a dataset says of its rows, after some are gone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.service import Service
from app.services.erasure.parts import parts
from app.tables import Dataset, Sample, SampleSubject

SPLITS = ("train", "eval")
ROWS = 10_000  # positions of one transaction
OF_ALL_ROWS = ("duplicate", "constant-feature")  # notices that the erased rows had a part in


def _none() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Removed:
    """Rows that went: where they stood, and how many of each label (None: unlabelled) and split."""

    positions: NDArray[np.int64] = field(default_factory=_none)
    rows: Counter[tuple[str | None, str]] = field(default_factory=Counter)

    def __add__(self, other: Removed) -> Removed:
        return Removed(np.concatenate([self.positions, other.positions]), self.rows + other.rows)


def of(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], out: NDArray[np.bool_]) -> Removed:
    """The rows of a shard as sent that a mask (b,) takes out."""
    names = json.loads(metadata["classes"])
    pairs = zip(arrays["label"][out].tolist(), arrays["split"][out].tolist(), strict=True)
    rows = Counter((names[label] if label >= 0 else None, SPLITS[split]) for label, split in pairs)
    return Removed(arrays["positions"][out], rows)


def lock(session: Session, dataset_ids: Collection[UUID]) -> None:
    """Hold the rows of datasets, in one order for everybody."""
    for part in parts(sorted(dataset_ids)):
        session.scalars(
            select(Dataset.id).where(Dataset.id.in_(part)).order_by(Dataset.id).with_for_update()
        ).all()


def reduce(session: Session, dataset_id: UUID, removed: Removed) -> None:
    """Take rows out of the counts of a dataset; the caller holds it. A label without rows is no longer there.

    Notices that were made of all rows together go: what they say would tell a row by what it is not.
    """
    row = session.get_one(Dataset, dataset_id)
    classes = {name: dict(split) for name, split in row.classes.items()}
    for (name, split), count in removed.rows.items():
        if split == "train":
            row.train_rows -= count
        else:
            row.eval_rows -= count
        if name in classes:
            classes[name][split] -= count
    row.classes = {name: split for name, split in classes.items() if any(split.values())}
    if row.report:
        warnings = [one for one in row.report["warnings"] if one["reason"] not in OF_ALL_ROWS]
        row.report = {**row.report, "accepted": row.train_rows + row.eval_rows, "warnings": warnings}
    row.revision += 1


def remove_samples(service: Service, rows: Mapping[UUID, NDArray[np.int64]]) -> None:
    """Remove who erased rows were about, some thousand positions a transaction."""
    flat = ((id, at) for id, positions in sorted(rows.items()) for at in positions.tolist())
    for part in parts(flat, ROWS):
        with service.db.begin() as session:
            for dataset_id, positions in _by_dataset(part):
                for some in parts(positions):
                    for table in (SampleSubject, Sample):
                        mine = table.dataset_id == dataset_id, table.position.in_(some)
                        session.execute(delete(table).where(*mine))


def _by_dataset(rows: Iterable[Any]) -> Iterable[tuple[UUID, list[int]]]:
    found: dict[UUID, list[int]] = {}
    for dataset_id, position in rows:
        found.setdefault(dataset_id, []).append(position)
    return found.items()
