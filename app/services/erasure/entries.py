"""Entries of the ledger: appended in one line, each also an object in the file store."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from app.db import clock, touch
from app.ledger_objects import Kind, LedgerObjects
from app.services.erasure.ledger import Positions
from app.tables import ErasedRow, ForgetRequest, LedgerEntry, LedgerTarget

LOCK = 0x6C656467  # the advisory lock of PostgreSQL that makes entries one line


def lock(session: Session) -> None:
    """Let one transaction at a time decide about requests, until it commits: who sees an entry sees all
    before it. It comes before every lock of a row. (On SQLite one transaction writes at a time anyway.)"""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def approve(
    session: Session, request: ForgetRequest, actor: str, targets: Collection[str], rows: Positions
) -> LedgerEntry:
    """Append the erasure of targets and rows; the caller holds `lock`."""
    entry = _append(session, request, "approve", actor)
    tenant_id, sequence = request.tenant_id, entry.sequence
    _insert(
        session,
        LedgerTarget,
        [{"sequence": sequence, "target": target, "tenant_id": tenant_id} for target in sorted(set(targets))],
    )
    _insert(
        session,
        ErasedRow,
        (
            {"dataset_id": id, "position": position, "sequence": sequence, "tenant_id": tenant_id}
            for id, positions in rows.items()
            for position in sorted(positions)
        ),
    )
    return entry


def lift(session: Session, request: ForgetRequest, actor: str) -> LedgerEntry:
    """Append the lift of an approved erasure; the caller holds `lock`."""
    return _append(session, request, "lift", actor)


def write_object(
    objects: LedgerObjects,
    entry: LedgerEntry,
    targets: Iterable[str] = (),
    rows: Positions | None = None,
    shared_rows: str = "erase",
) -> None:
    """Store an entry beside the database, last thing before its commit. With `shared_rows` a restore erases
    what was erased, and nothing that was left for other persons."""
    objects.put(
        entry.request_id,
        "lift" if entry.kind == "lift" else "approve",
        {
            "tenant": entry.tenant_id.hex,
            "request": entry.request_id.hex,
            "kind": entry.kind,
            "scope": entry.scope,
            "models": entry.models,
            "actor": entry.actor,
            "at": entry.created_at.isoformat(),
            "targets": sorted(set(targets)),
            "rows": {id.hex: sorted(positions) for id, positions in (rows or {}).items()},
            "shared_rows": shared_rows,
        },
    )


def _append(session: Session, request: ForgetRequest, kind: Kind, actor: str) -> LedgerEntry:
    entry = LedgerEntry(
        tenant_id=request.tenant_id,
        request_id=request.id,
        kind=kind,
        scope=request.scope,
        models=request.models,
        actor=actor,
        created_at=clock(session),
    )
    session.add(entry)
    session.flush()
    touch(session)
    return entry


def _insert(session: Session, table: Any, values: Iterable[dict[str, Any]]) -> None:
    rows = list(values)
    if rows:
        session.connection().execute(insert(table), rows)
