"""What a dataset's report says: what was accepted, and why the rest was not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from app.intake.clean import Cleaner, Rows
from app.intake.rows import SHOWN
from app.tables import Dataset


def counts_of(rows: Rows) -> Iterator[tuple[int, int, int]]:
    """(label, split, rows) of every pair that occurs."""
    pairs, counts = np.unique(rows.labels.astype(np.int64) * 2 + rows.split, return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        yield pair // 2, pair % 2, count


def report_of(cleaner: Cleaner, row: Dataset) -> dict[str, Any]:
    """The report of a dataset that was accepted."""
    found = cleaner.findings
    rejected = found["subject-erased"].count if "subject-erased" in found else 0
    quarantined = sum(finding.count for finding in found.values()) - rejected
    return {
        "rows": row.rows,
        "accepted": row.train_rows + row.eval_rows,
        "rejected": rejected,
        "quarantined": quarantined,
        "reasons": [
            {"reason": reason, "count": finding.count, "rows": finding.rows}
            for reason, finding in found.items()
        ],
        "warnings": list(_warnings(cleaner, row)),
    }


def _warnings(cleaner: Cleaner, row: Dataset) -> Iterator[dict[str, Any]]:
    known = {*cleaner.names, *cleaner.declared}
    if empty := sorted(name for name in known if name not in row.classes):
        yield {"reason": "empty-class", "count": len(empty), "classes": empty[:SHOWN]}
    if cleaner.constant and row.train_rows + row.eval_rows > 1:
        yield {
            "reason": "constant-feature",
            "count": len(cleaner.constant),
            "features": cleaner.constant[:SHOWN],
        }
    if cleaner.duplicates:
        yield {"reason": "duplicate", "count": cleaner.duplicates}
