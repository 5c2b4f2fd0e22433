"""Datasets on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from app.ids import DatasetId
from app.schemas.base import Answer
from app.tables import Dataset

EXAMPLE_ID = "dst_01jd8x4r9kf3v5n2m7q6t0a1bc"


class Finding(Answer):
    """Rows that were left out, and why."""

    reason: str = Field(description="non-finite, wrong-dimension or subject-erased.")
    count: int
    rows: list[int] = Field(description="The first of them; rows of the file are counted from 0.")


class Notice(Answer):
    """Something that was accepted and deserves a look."""

    reason: str = Field(description="empty-class, constant-feature or duplicate.")
    count: int
    classes: list[str] = Field([], description="The first classes that have no rows.")
    features: list[int] = Field([], description="The first features that have one value in every row.")


class ReportRead(Answer):
    """What became of the rows of an upload."""

    rows: int
    accepted: int
    rejected: int
    quarantined: int
    reasons: list[Finding]
    warnings: list[Notice]


class ClassCount(Answer):
    """A label and its rows."""

    name: str
    train: int
    eval: int


class DatasetRead(Answer):
    """One upload. Rows are addressed by their position in it, from 0."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXAMPLE_ID,
                "name": "kingfishers",
                "format": "npz",
                "shape": [384],
                "dtype": "float32",
                "rows": 1000,
                "train_rows": 900,
                "eval_rows": 100,
                "has_labels": True,
                "has_targets": False,
                "classes": [{"name": "kingfisher", "train": 900, "eval": 100}],
                "report": {
                    "rows": 1000,
                    "accepted": 1000,
                    "rejected": 0,
                    "quarantined": 0,
                    "reasons": [],
                    "warnings": [],
                },
                "for_forget": False,
                "created_at": "2026-01-05T09:00:00Z",
            }
        }
    )

    id: DatasetId
    name: str
    format: str
    shape: list[int] = Field(description="Of one row.")
    dtype: str = Field(description="float32, or uint8 for images.")
    rows: int = Field(description="Of the upload, the ones left out included.")
    train_rows: int
    eval_rows: int
    has_labels: bool
    has_targets: bool
    classes: list[ClassCount] = Field(description="In the order of their UTF-8 bytes.")
    report: ReportRead
    for_forget: bool = Field(description="Sent again only to be forgotten: no model may use it.")
    created_at: datetime

    @classmethod
    def of(cls, row: Dataset) -> DatasetRead:
        """A live row as clients see it."""
        counts: dict[str, Any] = row.classes
        return cls(
            id=row.id,
            name=row.name,
            format=row.format,
            shape=row.shape,
            dtype=row.dtype,
            rows=row.rows,
            train_rows=row.train_rows,
            eval_rows=row.eval_rows,
            has_labels=row.has_labels,
            has_targets=row.has_targets,
            classes=[
                ClassCount(name=name, **counts[name]) for name in sorted(counts, key=lambda n: n.encode())
            ],
            report=ReportRead.model_validate(row.report),
            for_forget=row.for_forget,
            created_at=row.created_at,
        )
