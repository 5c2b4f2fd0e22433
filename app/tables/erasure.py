"""Forgetting and proof: restricted rows, the ledger, erased rows, the audit chain.

A forget request writes the first three; every claim, publication and intake consults them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, Sequence, WithId


class RestrictedRow(Base):
    """A row that a forget request has named: no new use until the request is decided."""

    __tablename__ = "restricted_rows"

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))


class LedgerEntry(Base):
    """An approved erasure, or the lift of one; append-only, also an object in the file store."""

    __tablename__ = "ledger_entries"
    __table_args__ = (Index(None, "request_id"),)

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    request_id: Mapped[UUID]
    kind: Mapped[str]  # approve, lift
    scope: Mapped[str]  # subject, samples, class
    models: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # ids as hex; null: every model
    actor: Mapped[str]
    created_at: Mapped[datetime]
    located: Mapped[int | None]  # of a class: the newest entry when its rows were entered; null: none were


class LedgerTarget(Base):
    """Whom an entry names: a keyed digest of a subject or sample id, one row, or a class."""

    __tablename__ = "ledger_targets"
    __table_args__ = (Index(None, "tenant_id", "target"),)

    sequence: Mapped[int] = mapped_column(ForeignKey("ledger_entries.sequence"), primary_key=True)
    target: Mapped[str] = mapped_column(
        primary_key=True
    )  # "subject:<digest>", "sample:<digest>", "row:<dataset hex>:<position>", "class:<hex>"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))


class ErasedRow(Base):
    """A row that an entry of the ledger takes away; what used it and is older is tainted."""

    __tablename__ = "erased_rows"
    __table_args__ = (Index(None, "sequence"),)

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(ForeignKey("ledger_entries.sequence"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))


class Restore(WithId, Base):
    """A backup that was loaded into this database. Until `finished_at` the service is reconciling: what was
    erased after the backup is being taken out of what it brought back."""

    __tablename__ = "restores"

    taken_at: Mapped[datetime]  # when the backup was made
    ledger_sequence: Mapped[int]  # of the backup
    report: Mapped[dict[str, Any]]  # what was followed, lost, rebuilt
    finished_at: Mapped[datetime | None]


class AuditEvent(Base):
    """One mutating call or change of state: actors and ids only, each with the hash of the one before."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "tenant_id", "sequence"),)

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id"))
    created_at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]  # "dataset.accepted", "alias.moved"
    resources: Mapped[dict[str, Any]]  # kind -> id
    previous_hash: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)


class Change(Base):
    """One row: the counter that tells every process that its memory may be old."""

    __tablename__ = "changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    counter: Mapped[int]
