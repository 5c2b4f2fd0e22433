"""What every use case needs, made once per process: settings, database, vault, bell, ledger."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.config import Settings
from app.db import Database, connect
from app.files import LocalFiles
from app.ledger_objects import LedgerObjects
from app.queue import Bell
from app.vault import Vault


@dataclass(frozen=True)
class Service:
    """Passed as the first argument of every use case."""

    settings: Settings
    db: Database
    vault: Vault
    bell: Bell
    ledger: LedgerObjects

    def close(self) -> None:
        self.bell.close()
        self.db.close()


@dataclass(frozen=True)
class Caller:
    """Who calls: one API key of one tenant."""

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    request_id: str = ""

    @property
    def actor(self) -> str:
        """How audit and history name the caller."""
        return f"key:{self.key_id.hex}"

    def may(self, scope: str) -> bool:
        """Whether the key has this scope; `admin` has them all."""
        return scope in self.scopes or "admin" in self.scopes


def open_service(settings: Settings) -> Service:
    """Open everything that the settings name; creates directories, changes no schema."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Service(
        settings=settings,
        db=connect(settings.database_url),
        vault=Vault(LocalFiles(settings.objects_dir), LocalFiles(settings.keys_dir)),
        bell=Bell(settings),
        ledger=LedgerObjects(settings.ledger_dir),
    )
