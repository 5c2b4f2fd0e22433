"""Keys that sign certificates: Ed25519, one active per tenant, the private half as a key object.

A retired key signs no more and what it signed stays valid; a revoked one is not to be trusted, whatever it
signed. The private half of either is destroyed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import NotFound
from app.service import Service
from app.services.callers import audit
from app.tables import SigningKey
from app.vault import KeyObject

OPERATOR = "operator"


def current(session: Session, tenant_id: UUID) -> SigningKey | None:
    """The newest key of a tenant that may sign."""
    return session.scalar(
        select(SigningKey)
        .filter_by(tenant_id=tenant_id, retired_at=None, revoked_at=None)
        .order_by(SigningKey.id.desc())
        .limit(1)
    )


def ensure(service: Service, session: Session, tenant_id: UUID) -> SigningKey:
    """The key that signs now, made where there is none; nobody ends it before this transaction does."""
    found = current(session, tenant_id)
    if found is not None:
        held = session.get_one(SigningKey, found.id, with_for_update={"read": True}, populate_existing=True)
        if held.retired_at is None:
            return held
    return create(service, session, tenant_id, actor="service")


def create(service: Service, session: Session, tenant_id: UUID, *, actor: str = OPERATOR) -> SigningKey:
    """A new key; it signs from now on, and older ones are retired. Its private half is stored first."""
    private = Ed25519PrivateKey.generate()
    now = clock(session)
    row = SigningKey(
        id=ids.new(),
        created_at=now,
        tenant_id=tenant_id,
        public_key=base64.b64encode(private.public_key().public_bytes_raw()).decode(),
        retired_at=None,
        revoked_at=None,
    )
    service.vault.write_key(row.id, KeyObject(key=private.private_bytes_raw()))
    for older in session.scalars(select(SigningKey).filter_by(tenant_id=tenant_id, retired_at=None)):
        older.retired_at = now
    session.add(row)
    session.flush()
    _record(session, row, "created", actor)
    return row


def secret(service: Service, key: SigningKey) -> Ed25519PrivateKey:
    """The private half of a key; raises `ArtifactCorrupt` where it is destroyed."""
    found = service.vault.key(key.id).key
    assert found is not None
    return Ed25519PrivateKey.from_private_bytes(found)


def renew(service: Service, tenant_id: UUID) -> SigningKey:
    """Rotation: a new key signs, the one before is retired and its private half destroyed."""
    with service.db.begin() as session:
        before = current(session, tenant_id)
        row = create(service, session, tenant_id)
    if before is not None:
        service.vault.destroy(before.id)
    return row


def retire(service: Service, key_id: UUID) -> SigningKey:
    """End signing with a key. The next certificate makes a new one. Raises `NotFound`."""
    with service.db.begin() as session:
        row = _get(session, key_id)
        if row.retired_at is None:
            row.retired_at = clock(session)
            _record(session, row, "retired", OPERATOR)
    service.vault.destroy(key_id)
    return row


def revoke(service: Service, key_id: UUID) -> SigningKey:
    """Say that nothing a key signed is to be trusted. Raises `NotFound`."""
    with service.db.begin() as session:
        row = _get(session, key_id)
        if row.revoked_at is None:
            row.revoked_at = clock(session)
            row.retired_at = row.retired_at or row.revoked_at
            _record(session, row, "revoked", OPERATOR)
    service.vault.destroy(key_id)
    return row


def every(service: Service) -> Sequence[SigningKey]:
    """The public halves, oldest first; whoever holds a certificate may check it, so they are no secret."""
    with service.db.read() as session:
        return session.scalars(select(SigningKey).order_by(SigningKey.id)).all()


def published(service: Service, *, tenants: bool = False) -> list[dict[str, str | None]]:
    """Every key as it is published; for the operator with the tenant that it signs for."""
    if not tenants:
        return [public(row) for row in every(service)]
    return [{**public(row), "tenant": ids.encode("tnt", row.tenant_id)} for row in every(service)]


def public(row: SigningKey) -> dict[str, str | None]:
    """A key as it is published."""
    return {
        "id": ids.encode("sgk", row.id),
        "algorithm": "Ed25519",
        "public_key": row.public_key,
        "created_at": row.created_at.isoformat(),
        "retired_at": None if row.retired_at is None else row.retired_at.isoformat(),
        "revoked_at": None if row.revoked_at is None else row.revoked_at.isoformat(),
    }


def _get(session: Session, key_id: UUID) -> SigningKey:
    row = session.get(SigningKey, key_id, with_for_update=True)
    if row is None:
        raise NotFound("there is no such signing key")
    return row


def _record(session: Session, row: SigningKey, what: str, actor: str) -> None:
    audit.record(
        session,
        tenant_id=row.tenant_id,
        actor=actor,
        action=f"signing_key.{what}",
        resources={"signing_key": row.id},
    )
