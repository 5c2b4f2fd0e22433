"""Versions, their lineage and their centroids on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from app.ids import ClassId, DatasetId, JobId, ModelId, VersionId
from app.schemas.base import Answer


class DatasetUse(Answer):
    """An edge of the lineage: what the rows of a dataset did for a version."""

    dataset: DatasetId
    role: str = Field(description="train, evaluate, and by later methods select, calibrate, align.")
    inherited: bool = Field(description="Whether an ancestor used the rows, and not this version itself.")
    rows: int
    left_out: int = Field(description="Rows that a forget request kept out.")


class VersionClassRead(Answer):
    """One class that the version knows."""

    id: ClassId
    name: str
    count: int | None = Field(description="Rows in its centroid; null where the version came without one.")


class VersionSummary(Answer):
    """A version in a list."""

    id: VersionId
    model: ModelId
    number: int
    parent: int | None
    replaced_by: int | None = Field(description="The version that a forget job put in its place.")
    state: str
    tainted: bool
    method: dict[str, Any] = Field(description="{name, params}")
    accuracy: float | None
    classes: int
    created_at: datetime


class VersionRead(Answer):
    """One immutable trained state of a model."""

    id: VersionId
    model: ModelId
    number: int
    parent: int | None
    replaces: int | None = Field(description="The version that a forget job made this one for.")
    replaced_by: int | None = Field(description="The version that a forget job put in its place.")
    job: JobId | None
    state: str
    tainted: bool
    exactly_removable: float | None = Field(
        description="Share of the rows it learned that it could lose exactly now; null where there are none."
    )
    method: dict[str, Any] = Field(description="{name, params}")
    seed: int
    classes: list[VersionClassRead]
    class_map_digest: str
    datasets: list[DatasetUse]
    metrics: dict[str, Any]
    report: dict[str, Any]
    digests: dict[str, str]
    width: int
    ledger_sequence: int
    seconds: float
    created_at: datetime


class LineageNode(Answer):
    """A version among its ancestors and descendants."""

    number: int
    id: VersionId
    parent: int | None
    state: str
    tainted: bool
    method: str


class LineageRead(Answer):
    """Where a version comes from and what came of it."""

    version: int
    ancestors: list[LineageNode] = Field(description="Its parent first, the first version last.")
    descendants: list[LineageNode] = Field(description="By number.")
    datasets: list[DatasetUse]


class CentroidRead(Answer):
    """The mean feature vector of a class, or why it is not shown."""

    class_id: ClassId
    name: str
    count: int | None
    vector: list[float] | None = Field(description="float32, in units of the features.")
    reason: str | None = None


class CentroidList(Answer):
    """The centroids of a version, in the order of its classes."""

    version: int
    width: int
    items: list[CentroidRead]
