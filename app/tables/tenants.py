"""Who may call: tenants, their API keys, and answers kept for replay."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, WithId


class Tenant(WithId, Base):
    """An owner of everything else. Its HMAC key is `keys/<id>`, never a row."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(unique=True)


class ApiKey(WithId, Base):
    """A credential of one tenant. Only the SHA-256 of its 32 random bytes is kept: they need no slow hash."""

    __tablename__ = "api_keys"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyRecord(WithId, Base):
    """The answer to one idempotency key, written in the transaction of its effect.

    `fingerprint` is an HMAC under the tenant's key over the canonical body; of an upload over its query and
    type, for that of its bytes stands in the dataset's key object.
    """

    __tablename__ = "idempotency_records"
    __table_args__ = (UniqueConstraint("tenant_id", "route", "key"), Index(None, "created_at"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    route: Mapped[str]  # method and path
    key: Mapped[str]
    fingerprint: Mapped[str | None]
    renewed_at: Mapped[datetime | None]  # while an upload streams, whose key stays held only so long
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    body: Mapped[Any] = mapped_column(JSON, nullable=True)
    resource_id: Mapped[UUID | None]
