"""Who may call: tenants, their HMAC keys, their API keys."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.errors import NameConflict, NotFound, ValidationFailed
from app.files import write_durably
from app.schemas.keys import KeyCreated, KeyRead
from app.service import Caller, Service
from app.services.callers import audit
from app.services.callers.idempotency import Once
from app.services.paging import Page, Place, Window, window
from app.tables import ApiKey, Tenant
from app.vault import new_key

SCOPES = ("read", "ingest", "train", "forget:create", "forget:approve", "promote", "search", "admin")
DEFAULT_TENANT = "default"
ADMIN_KEY_FILE = "admin.key"

_tenant_keys: dict[UUID, bytes] = {}  # they never change; 32 bytes each


@dataclass(frozen=True)
class Issued:
    """A fresh API key. The token is known now and never again."""

    row: ApiKey
    token: str


def bootstrap(service: Service) -> None:
    """On first start: the tenant `default`, its HMAC key, an admin key in the data directory (mode 0600).

    Repeating it does nothing; of several processes that start together one does it.
    """
    with service.db.read() as session:
        if session.scalar(select(Tenant.id).where(Tenant.name == DEFAULT_TENANT)):
            return
    path = service.settings.data_dir / ADMIN_KEY_FILE
    try:
        _create(service, DEFAULT_TENANT, actor="system", keep=lambda token: _write_secret(path, token))
    except NameConflict:  # another process was first
        return


def create_tenant(service: Service, name: str, *, actor: str = "operator") -> tuple[Tenant, str]:
    """A new tenant with its HMAC key, and the token of its first admin key."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise ValidationFailed("a tenant's name has 1 to 200 printable characters", pointer="/name")
    return _create(service, name, actor=actor, keep=lambda token: None)


def tenants(service: Service) -> Sequence[Tenant]:
    """Every tenant, by name."""
    with service.db.read() as session:
        return session.scalars(select(Tenant).order_by(Tenant.name)).all()


def create_key(
    service: Service,
    caller: Caller,
    *,
    name: str,
    scopes: Sequence[str],
    expires_in: float | None,
    once: Once | None = None,
) -> Issued:
    """An API key of the caller's tenant. The stored answer of an idempotent call has no token."""
    with service.db.begin() as session:
        if once:
            once.begin(session)
        issued = issue(session, caller.tenant_id, name, scopes, expires_in, actor=caller.actor)
        if once:
            read = KeyRead.model_validate(issued.row).model_dump()
            once.finish(
                session,
                status=201,
                body=KeyCreated(**read, token=None).model_dump(mode="json"),
                headers={"Location": f"/v1/api-keys/{ids.encode('key', issued.row.id)}"},
                resource_id=issued.row.id,
            )
        return issued


def issue(
    session: Session,
    tenant_id: UUID,
    name: str,
    scopes: Sequence[str],
    expires_in: float | None,
    *,
    actor: str,
) -> Issued:
    """An API key, in the caller's transaction; `expires_in` is in seconds."""
    now = clock(session)
    secret = secrets.token_urlsafe(32)
    row = ApiKey(
        id=ids.new(),
        created_at=now,
        tenant_id=tenant_id,
        name=name,
        secret_sha256=fingerprint(secret),
        scopes=sorted(set(scopes)),
        expires_at=None if expires_in is None else now + timedelta(seconds=expires_in),
    )
    session.add(row)
    audit.record(
        session, tenant_id=tenant_id, actor=actor, action="api_key.created", resources={"api_key": row.id}
    )
    touch(session)
    return Issued(row, f"{ids.encode('key', row.id)}.{secret}")


def keys_of(service: Service, tenant_id: UUID, page: Page[Place]) -> Window[ApiKey]:
    """The API keys of a tenant, revoked ones included."""
    with service.db.read() as session:
        return window(session, select(ApiKey).where(ApiKey.tenant_id == tenant_id), page, ApiKey)


def revoke_key(service: Service, caller: Caller, key_id: UUID) -> None:
    """End an API key. Ending it again changes nothing."""
    with service.db.begin() as session:
        row = session.get(ApiKey, key_id)
        if row is None or row.tenant_id != caller.tenant_id:
            raise NotFound("there is no such API key")
        if row.revoked_at is not None:
            return
        row.revoked_at = clock(session)
        audit.record(
            session,
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            action="api_key.revoked",
            resources={"api_key": key_id},
        )
        touch(session)


def fingerprint(secret: str) -> str:
    """What is stored of a secret: SHA-256, for 32 random bytes need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def tenant_key(service: Service, tenant_id: UUID) -> bytes:
    """The 32 bytes under which a tenant's subjects, samples and fingerprints are digested."""
    found = _tenant_keys.get(tenant_id)
    if found is None:
        found = service.vault.key(tenant_id).key
        assert found is not None
        _tenant_keys[tenant_id] = found
    return found


def digester(service: Service, tenant_id: UUID) -> Callable[[str], str]:
    """`digest` for many texts of one tenant."""
    key = tenant_key(service, tenant_id)

    def one(text: str) -> str:
        plain = unicodedata.normalize("NFC", text).strip()
        return hmac.digest(key, plain.encode(), "sha256").hex()

    return one


def digest(service: Service, tenant_id: UUID, text: str) -> str:
    """HMAC-SHA256 of a text (NFC, trimmed) under the tenant's key, hex: what is stored of a person."""
    return digester(service, tenant_id)(text)


def _create(service: Service, name: str, *, actor: str, keep: Callable[[str], None]) -> tuple[Tenant, str]:
    """`keep` is told the token by the one process whose tenant will be committed."""
    tenant_id = ids.new()
    service.vault.write_key(tenant_id, new_key())
    try:
        with service.db.begin() as session:
            tenant = Tenant(id=tenant_id, created_at=clock(session), name=name)
            session.add(tenant)
            session.flush()  # waits for a process that is creating the same one, then fails
            audit.record(
                session,
                tenant_id=tenant_id,
                actor=actor,
                action="tenant.created",
                resources={"tenant": tenant_id},
            )
            issued = issue(session, tenant_id, "admin", ["admin"], None, actor=actor)
            keep(issued.token)
    except BaseException as error:
        service.vault.destroy(tenant_id)
        if isinstance(error, IntegrityError):
            raise NameConflict("a tenant of that name exists", pointer="/name") from None
        raise
    return tenant, issued.token


def _write_secret(path: Path, token: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a process that was killed, whose number came again
    write_durably(path, temporary, [f"{token}\n".encode()])
