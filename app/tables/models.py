"""Models and what became of them: classes, versions, lineage, centroids, aliases, exports."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, Positions, WithId


class Model(WithId, Base):
    """A named lineage of versions."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("tenant_id", "name"), Index(None, "tenant_id", "created_at"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    task: Mapped[str]
    input: Mapped[dict[str, Any]]  # InputSpec
    grid: Mapped[Any] = mapped_column(JSON)  # "normalised" or {"exponent": n}
    network: Mapped[dict[str, Any]]  # NetworkSpec
    expansion: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # Expansion
    ridge: Mapped[Any] = mapped_column(JSON, default=lambda: {"k": -4})  # FixedRidge or "gcv"
    target: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # TargetGrid, of a regression
    weights_id: Mapped[UUID | None] = mapped_column(ForeignKey("uploads.id"))
    evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id"))
    gates: Mapped[dict[str, Any]]
    min_centroid_rows: Mapped[int]
    keep_versions: Mapped[int] = mapped_column(default=5)  # newest; older ones are retired
    on_taint: Mapped[str] = mapped_column(default="serve-until-replaced")  # or fall-back, suspend
    revision: Mapped[int] = mapped_column(default=1)
    deleted_at: Mapped[datetime | None]
    update_policy: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # UpdatePolicy
    policy_key_id: Mapped[UUID | None]  # the API key that set it, which its jobs act as
    policy_set_at: Mapped[datetime | None]


class FeatureMap(WithId, Base):
    """Network weights and grid: what turns a stored row into grid features, never the method.

    `source` names where the weights come from: `identity`, an upload, or the version that trained them.
    """

    __tablename__ = "feature_maps"
    __table_args__ = (UniqueConstraint("tenant_id", "source"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    source: Mapped[str]
    width: Mapped[int]


class ModelClass(WithId, Base):
    """A class of one model: a stable id and a display name. Ids never shift."""

    __tablename__ = "classes"
    __table_args__ = (UniqueConstraint("model_id", "name_key"), UniqueConstraint("model_id", "name"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    name: Mapped[str]  # NFC: also the label key in statistics and weights
    name_key: Mapped[str]  # case-folded, look-alikes mapped to one
    retired_at: Mapped[datetime | None]


class Version(WithId, Base):
    """One immutable trained state. Its digests and nonce stand in the key object `keys/<key_id>`."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model_id", "number"), Index(None, "replaces_id"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("versions.id"))
    replaces_id: Mapped[UUID | None] = mapped_column(ForeignKey("versions.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))  # null for an import
    feature_map_id: Mapped[UUID] = mapped_column(ForeignKey("feature_maps.id"))
    method: Mapped[str]
    params: Mapped[dict[str, Any]]
    seed: Mapped[int]
    state: Mapped[str] = mapped_column(default="ready")  # ready, retired, purged
    ledger_sequence: Mapped[int]  # the ledger when its rows were chosen; later entries may taint it
    file_id: Mapped[UUID]  # head and, where it was trained here, the network
    statistics_file_id: Mapped[UUID | None]  # under the same key
    key_id: Mapped[UUID]
    metrics: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]  # of the method: donors, iterations
    seconds: Mapped[float]
    purged_at: Mapped[datetime | None]  # when what it stored was destroyed


class VersionClass(Base):
    """The class map of a version: which classes it knows and its centroid of each.

    An unchanged centroid is stored once and shared by versions.
    """

    __tablename__ = "version_classes"

    version_id: Mapped[UUID] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    class_id: Mapped[UUID] = mapped_column(ForeignKey("classes.id"), primary_key=True)
    centroid_id: Mapped[UUID | None] = mapped_column(ForeignKey("centroids.id"))


class VersionDataset(Base):
    """An edge of the lineage: what the rows of a dataset did for a version.

    Role `train` uses the rows of split `train`, `evaluate` those of split `eval` (or all, for a named
    evaluation data set), without the positions left out. `inherited` marks rows used by an ancestor.
    """

    __tablename__ = "version_datasets"
    __table_args__ = (Index(None, "dataset_id"),)

    version_id: Mapped[UUID] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)  # train, select, calibrate, evaluate, align
    inherited: Mapped[bool]
    rows: Mapped[int]
    left_out: Mapped[list[int]] = mapped_column(Positions)


class Centroid(WithId, Base):
    """Sum and count of one class on the grid, encrypted under the key of the version that made it."""

    __tablename__ = "centroids"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    class_id: Mapped[UUID] = mapped_column(ForeignKey("classes.id"))
    feature_map_id: Mapped[UUID] = mapped_column(ForeignKey("feature_maps.id"))
    count: Mapped[int]
    ciphertext: Mapped[bytes]  # the int64 sums
    key_id: Mapped[UUID]


class Alias(WithId, Base):
    """A movable name for a version of one model."""

    __tablename__ = "aliases"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    name: Mapped[str]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("versions.id"))
    protected: Mapped[bool] = mapped_column(default=False)
    revision: Mapped[int] = mapped_column(default=1)


class AliasMove(WithId, Base):
    """One move of an alias, append-only; `version_id` is null where it was removed."""

    __tablename__ = "alias_moves"
    __table_args__ = (Index(None, "model_id", "name", "created_at"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    name: Mapped[str]
    version_id: Mapped[UUID | None] = mapped_column(ForeignKey("versions.id"))
    reason: Mapped[str]
    actor: Mapped[str]  # an API key's or job's id


class Export(WithId, Base):
    """Something that left: a version's artifact, to whom and when. A forget request lists it."""

    __tablename__ = "exports"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    version_id: Mapped[UUID | None] = mapped_column(ForeignKey("versions.id"))
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id"))
    actor: Mapped[str]
    recipient: Mapped[str | None]
