"""What was sent: datasets, their shards, the rows that name somebody, uploads of weights."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, WithId


class Dataset(WithId, Base):
    """One upload, never appended to. Its digest stands in the key object `keys/<id>`."""

    __tablename__ = "datasets"
    __table_args__ = (Index(None, "tenant_id", "created_at"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    format: Mapped[str]  # npz, npy, safetensors, parquet, csv, jsonl, json, images
    kind: Mapped[str]  # rows: x with labels or targets
    shape: Mapped[list[int]]  # of one row of x
    dtype: Mapped[str]  # float32 or uint8
    rows: Mapped[int]  # positions 0 .. rows - 1, erased ones included
    train_rows: Mapped[int]  # that are there now
    eval_rows: Mapped[int]
    has_labels: Mapped[bool]
    has_targets: Mapped[bool]
    classes: Mapped[dict[str, Any]]  # label key -> {"train": n, "eval": n}
    report: Mapped[dict[str, Any]]
    revision: Mapped[int] = mapped_column(default=1)
    deleted_at: Mapped[datetime | None]  # set while it arrives too, so that nobody uses it
    arriving: Mapped[bool] = mapped_column(default=False)  # its samples are being written; no caller sees it
    for_forget: Mapped[bool] = mapped_column(default=False)  # rows sent again, only to be forgotten


class Shard(WithId, Base):
    """Some thousand rows of a dataset in one encrypted file: as sent, or on the grid of a feature map.

    Positions `first .. first + rows - 1`; an erasure writes the shard anew under another file and key, and
    the positions of the other rows do not change.
    """

    __tablename__ = "shards"
    __table_args__ = (UniqueConstraint("dataset_id", "feature_map_id", "first"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    feature_map_id: Mapped[UUID | None] = mapped_column(ForeignKey("feature_maps.id"))
    first: Mapped[int]
    rows: Mapped[int]
    clipped: Mapped[int] = mapped_column(default=0)  # values that the grid cut off
    file_id: Mapped[UUID]
    key_id: Mapped[UUID]


class RowIndex(WithId, Base):
    """Keyed fingerprints of the rows of a deleted dataset on one feature map, in an encrypted file.

    Made when the rows go and a version that used them stays: rows that are sent again to be forgotten must be
    among them. A forgotten row's fingerprint is taken out, under a new file and key.
    """

    __tablename__ = "row_indexes"
    __table_args__ = (UniqueConstraint("dataset_id", "feature_map_id"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    feature_map_id: Mapped[UUID] = mapped_column(ForeignKey("feature_maps.id"))
    rows: Mapped[int]
    file_id: Mapped[UUID]
    key_id: Mapped[UUID]


class Sample(Base):
    """A row that carries a sample id or a subject; rows that carry neither have no row here."""

    __tablename__ = "samples"
    __table_args__ = (Index(None, "tenant_id", "sample_digest"),)

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    sample_digest: Mapped[str | None]  # HMAC under the tenant's key


class SampleSubject(Base):
    """A person whom a row is about: a keyed digest, zero or more for a row."""

    __tablename__ = "sample_subjects"
    __table_args__ = (
        ForeignKeyConstraint(["dataset_id", "position"], ["samples.dataset_id", "samples.position"]),
        Index(None, "tenant_id", "subject_digest"),
    )

    dataset_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    subject_digest: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))


class Upload(WithId, Base):
    """Weights that a client sent: a safetensors file, encrypted under the key of its id."""

    __tablename__ = "uploads"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    bytes: Mapped[int]
    tensors: Mapped[dict[str, Any]]  # name -> {"dtype", "shape"}
    file_id: Mapped[UUID]
    key_id: Mapped[UUID]
