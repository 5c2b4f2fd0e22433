"""Whether this process can take work: each check by its name."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app import ids
from app.service import Service
from app.services import schema
from app.services.backups import under_way
from app.services.brief import Brief

State = Literal["ok", "failed"]
Ledger = Literal["ok", "failed", "reconciling"]


class Readiness(BaseModel):
    """The checks and what follows from them."""

    model_config = ConfigDict(frozen=True)

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="Degraded: work is accepted durably and starts when the broker is back."
    )
    database: State
    schema_revision: State
    storage: State
    broker: State
    ledger: Ledger = Field(
        description="Reconciling: a backup was restored, and what was erased after it is being taken out."
    )


def look(service: Service) -> Readiness:
    """Every check, run within the last second."""
    return _checked(service)


def _check(service: Service) -> Readiness:
    database = _database(service)
    revision = _schema(service) if database == "ok" else "failed"
    storage = _storage(service)
    broker: State = "ok" if service.bell.answers() else "failed"
    ledger = _ledger(service) if revision == "ok" else "failed"
    if "failed" in (database, revision, storage) or ledger != "ok":
        status: Literal["ready", "degraded", "unavailable"] = "unavailable"
    else:
        status = "ready" if broker == "ok" else "degraded"
    return Readiness(
        status=status,
        database=database,
        schema_revision=revision,
        storage=storage,
        broker=broker,
        ledger=ledger,
    )


_checked = Brief(_check)


def _database(service: Service) -> State:
    try:
        with service.db.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "failed"
    return "ok"


def _schema(service: Service) -> State:
    try:
        schema.check(service.db)
    except (schema.SchemaMismatch, SQLAlchemyError):
        return "failed"
    return "ok"


def _ledger(service: Service) -> Ledger:
    try:
        with service.db.read() as session:
            return "reconciling" if under_way.is_open(session) else "ok"
    except SQLAlchemyError:
        return "failed"


def _storage(service: Service) -> State:
    probe = ids.new()
    try:
        for files in (service.vault.files, service.vault.keys):
            files.put(probe, [b"probe"])
            files.delete(probe)
    except OSError:
        return "failed"
    return "ok"
