"""Models that update themselves: datasets that wait for one, and what was decided about them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, WithId


class Offer(Base):
    """A dataset that was sent for a model. Written in the transaction that stores the dataset."""

    __tablename__ = "offers"
    __table_args__ = (Index(None, "state"), Index(None, "dataset_id"))

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    offered_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(default="waiting")  # waiting, started, learned, refused
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))  # the newest one that was to learn it
    tries: Mapped[int] = mapped_column(default=0)  # jobs that were to learn it


class Decision(WithId, Base):
    """A line of a model's history, append-only. It names ids and numbers, never what a row or label says."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "model_id", "created_at"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    event: Mapped[str]  # waited, started, joined, refused, failed, published, promoted, held-back
    reason: Mapped[str]
    code: Mapped[str | None]  # of the problem, where there is one
    actor: Mapped[str]
    datasets: Mapped[list[str]]  # ids as hex
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    version: Mapped[int | None]
    alias: Mapped[str | None]
    gates: Mapped[list[Any]]
