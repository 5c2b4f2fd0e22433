"""What a forget request would touch, shown before anything happens. Counts and ids: no person is in here."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.ids import ClassId, DatasetId, ExportId, JobId, ModelId, VersionId
from app.schemas.base import Answer
from app.schemas.forget import Scope


class DatasetTouched(Answer):
    """A dataset with rows that the request names."""

    dataset: DatasetId
    rows: int = Field(description="Its rows that would be erased.")
    shared: int = Field(description="Those among its rows found that name other persons too.")
    retained: bool = Field(description="Whether its rows are stored still.")
    shards: int = Field(description="Files of rows as they were sent that would be written anew.")
    features: int = Field(description="Files of cached features that would be written anew.")
    without_subject: int = Field(
        description="Its rows that name nobody: no request by subject can ever reach them."
    )


class WayRead(Answer):
    """How a version would be made clean."""

    name: Literal["subtract", "replay", "retrain", "drop"] = Field(
        description="subtract the rows' sums and solve again; replay the steps from the first affected one; "
        "retrain the network and what stands on it; drop the version, for nothing usable is left."
    )
    guarantee: Literal["exact"]
    reason: str
    reads_rows: int = Field(description="Stored rows that it opens.")
    steps: int = Field(description="Heads or networks that it computes anew.")
    classes_gone: list[str] = Field(description="Classes that its replacement would not know any more.")
    seconds: float = Field(description="Estimated.")


class VersionTouched(Answer):
    """A version that used such rows, or knows such a class."""

    id: VersionId
    number: int
    state: str
    roles: dict[str, int] = Field(
        description="What the rows did: train, select, evaluate, ..., and how many of them at most."
    )
    aliases: list[str]
    way: WayRead | None = Field(description="Null for a version that would only be destroyed: it is retired.")


class ModelTouched(Answer):
    """A model with such versions: one forget job."""

    model: ModelId
    name: str
    classes: list[ClassId] = Field(description="Classes that would be retired: named by the request.")
    versions: list[VersionTouched]
    centroids: int = Field(description="Stored centroids of these versions.")
    statistics: int = Field(description="Stored statistics of these versions.")
    guarantee: Literal["exact"] | None = Field(description="The weakest of its versions' ways.")
    seconds: float = Field(description="Estimated, of the whole job.")


class JobTouched(Answer):
    """A queued or running job that reads such a dataset: it starts again without the rows."""

    job: JobId
    kind: str
    state: str
    checkpoint: bool = Field(description="Whether it has saved a state, which would be destroyed.")


class ExportTouched(Answer):
    """A copy that left before: the service cannot reach it, its recipient has to act."""

    export: ExportId
    version: VersionId | None
    dataset: DatasetId | None
    recipient: str | None
    actor: str
    at: datetime


class Shares(Answer):
    """Which share could be removed exactly now; null where nothing was found."""

    rows: float | None
    persons: float | None = Field(description="Entries of `targets` all of whose rows could be.")


class Uncovered(Answer):
    """Something that the erasure does not reach."""

    code: str
    detail: str


class ForgetPreview(Answer):
    """The closure of a forget request: all that it would touch. Nothing of it was stored."""

    scope: Scope
    persons: int = Field(description="Entries of `targets`.")
    found: int = Field(description="Those with at least one row, or class.")
    samples: int = Field(description="Rows that would be erased.")
    shared: int = Field(description="Rows found that name other persons too.")
    datasets: list[DatasetTouched]
    models: list[ModelTouched]
    jobs: list[JobTouched]
    exports: list[ExportTouched]
    exactly_removable: Shares
    estimated_seconds: float = Field(description="Of the jobs one after the other, and of the purge.")
    uncovered: list[Uncovered]
