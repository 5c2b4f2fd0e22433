"""The audit chain: one row per change, each with the hash of the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import event, insert, select, text
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services.paging import Page, Window
from app.tables import AuditEvent

GENESIS = "0" * 64
LOCK = 0x70616C69  # the advisory lock of PostgreSQL that makes the chain one line
WAITING = "audit"  # in `Session.info`: what the end of the transaction will append


@dataclass(frozen=True)
class Verdict:
    """What a walk along the chain found."""

    events: int
    head: str
    broken_at: int | None  # the sequence of the first event that does not fit


def record(
    session: Session,
    *,
    tenant_id: UUID | None,
    actor: str,
    action: str,
    resources: Mapping[str, UUID | str | int],
) -> None:
    """Append an event when this transaction commits: actors and ids only.

    The chain is one line, so its lock is taken last, after every other lock of the transaction.
    """
    plain = {kind: value.hex if isinstance(value, UUID) else value for kind, value in resources.items()}
    session.info.setdefault(WAITING, []).append((tenant_id, actor, action, plain))


@event.listens_for(Session, "before_commit")
def _append(session: Session) -> None:
    if not session.info.get(WAITING) or session.in_nested_transaction():
        return
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    now = clock(session)
    newest = select(AuditEvent.hash).order_by(AuditEvent.sequence.desc()).limit(1)
    previous = session.connection().scalar(newest) or GENESIS
    links = []
    for tenant_id, actor, action, resources in session.info.pop(WAITING):
        link = {
            "tenant_id": tenant_id,
            "created_at": now,
            "actor": actor,
            "action": action,
            "resources": resources,
            "previous_hash": previous,
        }
        previous = _hash(AuditEvent(**link))
        links.append({**link, "hash": previous})
    session.connection().execute(insert(AuditEvent), links)  # numbered in this order


def verify(service: Service) -> Verdict:
    """Recompute the chain from its first event to its head."""
    previous, count = GENESIS, 0
    with service.db.read() as session:
        rows = session.scalars(
            select(AuditEvent).order_by(AuditEvent.sequence).execution_options(yield_per=1000)
        )
        for row in rows:
            if row.previous_hash != previous or row.hash != _hash(row):
                return Verdict(events=count, head=previous, broken_at=row.sequence)
            previous, count = row.hash, count + 1
    return Verdict(events=count, head=previous, broken_at=None)


def browse(
    service: Service, tenant_id: UUID, page: Page[int], *, action: str | None, created_after: datetime | None
) -> Window[AuditEvent]:
    """Events of a tenant in the order of the chain."""
    query = select(AuditEvent).where(AuditEvent.tenant_id == tenant_id)
    if action is not None:
        query = query.where(AuditEvent.action == action)
    if created_after is not None:
        query = query.where(AuditEvent.created_at > created_after)
    if page.after is not None:
        query = query.where(AuditEvent.sequence > page.after)
    with service.db.read() as session:
        rows = session.scalars(query.order_by(AuditEvent.sequence).limit(page.size + 1)).all()
    return Window(list(rows[: page.size]), more=len(rows) > page.size)


def _hash(link: AuditEvent) -> str:
    content: list[Any] = [
        link.previous_hash,
        link.tenant_id.hex if link.tenant_id else None,
        link.created_at.isoformat(timespec="microseconds"),
        link.actor,
        link.action,
        link.resources,
    ]
    line = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(line.encode()).hexdigest()
