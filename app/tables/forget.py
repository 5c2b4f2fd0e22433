"""Forget requests: who is to be forgotten, what that touches, what was signed, and who is told.

No row holds a raw identifier: targets are keyed digests, as in the ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, WithId


class ForgetRequest(WithId, Base):
    """One erasure that somebody asked for, from receipt to certificate."""

    __tablename__ = "forget_requests"
    __table_args__ = (
        Index(None, "tenant_id", "created_at"),
        Index(None, "state"),
        Index(None, "duplicate_of"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    scope: Mapped[str]  # subject, samples, class
    persons: Mapped[int]  # entries of `targets`; one person may have several identifiers
    shared_rows: Mapped[str]  # erase, report: rows that name other persons too
    models: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # ids as hex; null: all of the tenant
    method: Mapped[dict[str, Any]]  # {name, params}
    accept: Mapped[str]  # exact, certified, approximate
    regulation: Mapped[str | None]
    external_id: Mapped[str | None]
    submitted_at: Mapped[datetime]
    due_at: Mapped[datetime]
    extension: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # {reason, at, actor, due_before}
    hold: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))  # {reason, until, actor}: legal hold
    callback_url: Mapped[str | None]
    callback_key_id: Mapped[UUID | None]  # the key object that holds the signing secret
    rows_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id"))  # rows sent again
    withdraw: Mapped[bool] = mapped_column(default=False)  # versions go that only missing rows could clean
    state: Mapped[str] = mapped_column(default="received")
    creator: Mapped[str]
    decider: Mapped[str | None]  # who approved or rejected
    reason: Mapped[str | None]  # of a rejection or cancellation
    sequence: Mapped[int | None]  # its entry in the ledger, from approval on
    duplicate_of: Mapped[UUID | None] = mapped_column(ForeignKey("forget_requests.id"))
    stages: Mapped[dict[str, Any]] = mapped_column(default=dict)  # stage -> {"started_at", "finished_at"}
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)  # counts: what was found and done
    exceptions: Mapped[list[Any]] = mapped_column(default=list)  # what was not done, and why
    reminders: Mapped[list[int]] = mapped_column(default=list)  # days before the due date already announced
    finished_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)


class ForgetTarget(Base):
    """Whom or what a request names, as the ledger writes it: `subject:<digest>`, `sample:<digest>`,
    `row:<dataset hex>:<position>`, `class:<hex>`."""

    __tablename__ = "forget_targets"
    __table_args__ = (Index(None, "tenant_id", "target"),)

    request_id: Mapped[UUID] = mapped_column(ForeignKey("forget_requests.id"), primary_key=True)
    person: Mapped[int] = mapped_column(primary_key=True)  # which entry of `targets`
    target: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))


class ForgetItem(Base):
    """One thing in the closure of a request and what became of it.

    `kind` is model, version, dataset, evaluation, export, ...; the item of a model carries the state of its
    job: locating, unlearning, verifying, publishing, done, failed.
    """

    __tablename__ = "forget_items"
    __table_args__ = (Index(None, "job_id"), Index(None, "kind", "resource_id"))

    request_id: Mapped[UUID] = mapped_column(ForeignKey("forget_requests.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    state: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))  # of a model: the newest
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Certificate(WithId, Base):
    """What was done for a request, signed. The text is what was signed, byte for byte."""

    __tablename__ = "certificates"
    __table_args__ = (UniqueConstraint("request_id"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    request_id: Mapped[UUID] = mapped_column(ForeignKey("forget_requests.id"))
    signing_key_id: Mapped[UUID] = mapped_column(ForeignKey("signing_keys.id"))
    body: Mapped[str]  # canonical JSON with its signature


class SigningKey(WithId, Base):
    """A key that signs certificates. The private half is the key object `keys/<id>`."""

    __tablename__ = "signing_keys"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    public_key: Mapped[str]  # Ed25519, 32 bytes, base64
    retired_at: Mapped[datetime | None]  # signs no more; what it signed stays valid
    revoked_at: Mapped[datetime | None]  # what it signed is not to be trusted


class Delivery(WithId, Base):
    """One signed message to a request's callback, kept until it is delivered, and after."""

    __tablename__ = "deliveries"
    __table_args__ = (Index(None, "state", "next_at"), Index(None, "request_id"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    request_id: Mapped[UUID] = mapped_column(ForeignKey("forget_requests.id"))
    event: Mapped[str]  # forget.received, forget.approved, forget.completed, forget.failed, forget.due_soon
    payload: Mapped[dict[str, Any]]  # thin: ids only
    state: Mapped[str] = mapped_column(default="pending")  # pending, delivered, failed
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    last_status: Mapped[int | None]  # of the receiver's last answer
    last_error: Mapped[str | None]
    replay_of: Mapped[UUID | None] = mapped_column(ForeignKey("deliveries.id"))
