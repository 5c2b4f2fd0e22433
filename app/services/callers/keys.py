"""Which API key calls: answered from memory, so that a request costs no query for it."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select, update

from app import ids
from app.db import Database
from app.errors import Unauthorized
from app.service import Caller
from app.services.backups import under_way
from app.services.callers.access import fingerprint
from app.services.memory import Memory
from app.tables import ApiKey

KEYS = "api keys"
LIVE = select(ApiKey.id, ApiKey.tenant_id, ApiKey.secret_sha256, ApiKey.scopes, ApiKey.expires_at).where(
    ApiKey.revoked_at.is_(None)
)  # read after every change of what processes remember


@dataclass(frozen=True)
class Known:
    """What is remembered of a live API key."""

    id: UUID
    tenant_id: UUID
    secret_sha256: str
    scopes: frozenset[str]
    expires_at: datetime | None


@dataclass(frozen=True)
class Door:
    """Who may come in, and whether the service lets anybody yet."""

    keys: Mapping[str, Known]  # by the text of their id
    reconciling: bool  # a restored backup still holds what was erased after it


class Keys:
    """The live API keys of every tenant."""

    def __init__(self, db: Database, memory: Memory) -> None:
        self._db = db
        self._memory = memory
        self._lock = threading.Lock()
        self._used: dict[UUID, datetime] = {}

    def remembered(self) -> Door | None:
        """The keys, if memory has them."""
        found: Door | None = self._memory.peek(KEYS)
        return found

    def load(self) -> Door:
        """The keys; reads them where memory has none."""
        return self._memory.get(KEYS, self._read)

    def caller(self, door: Door, token: str, request_id: str) -> Caller:
        """Who calls with this token; raises `Unauthorized`."""
        name, _, secret = token.partition(".")
        key = door.keys.get(name)
        if key is None or not hmac.compare_digest(fingerprint(secret), key.secret_sha256):
            raise Unauthorized("the API key is unknown or revoked")
        now = datetime.now(UTC)
        if key.expires_at is not None and key.expires_at <= now:
            raise Unauthorized("the API key has expired")
        with self._lock:
            self._used[key.id] = now
        return Caller(key.tenant_id, key.id, key.scopes, request_id)

    def write_uses(self) -> None:
        """Store when each key was last used."""
        with self._lock:
            used, self._used = self._used, {}
        if not used:
            return
        with self._db.begin() as session:
            for key_id, at in used.items():
                session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=at))

    def _read(self) -> Door:
        with self._db.read() as session:
            rows = session.execute(LIVE).all()
            reconciling = under_way.is_open(session)
        keys = {
            ids.encode("key", row.id): Known(
                row.id, row.tenant_id, row.secret_sha256, frozenset(row.scopes), row.expires_at
            )
            for row in rows
        }
        return Door(keys, reconciling)
