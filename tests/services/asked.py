"""Forget requests for tests, straight into the tables: as they are received, and as they are approved."""

from __future__ import annotations

from datetime import timedelta

from app import ids
from app.db import clock, touch
from app.tables import (
    ErasedRow,
    ForgetRequest,
    ForgetTarget,
    LedgerEntry,
    LedgerTarget,
    RestrictedRow,
    Version,
)


def request(service, tenant_id, *, scope="samples", targets=(), rows=None, models=None, due=30.0, **changes):
    """A request that waits for its decision; its rows are restricted. `due` is in days."""
    with service.db.begin() as session:
        now = clock(session)
        values = {
            "id": ids.new(),
            "tenant_id": tenant_id,
            "created_at": now,
            "scope": scope,
            "persons": 1,
            "shared_rows": "erase",
            "models": None if models is None else [model.id.hex for model in models],
            "method": {"name": "auto", "params": {}},
            "accept": "exact",
            "submitted_at": now,
            "due_at": now + timedelta(days=due),
            "state": "awaiting-approval",
            "creator": "test",
        }
        row = ForgetRequest(**{**values, **changes})
        session.add(row)
        session.flush()
        own = {"tenant_id": tenant_id, "request_id": row.id}
        session.add_all(ForgetTarget(person=0, target=target, **own) for target in targets)
        for dataset, positions in (rows or {}).items():
            session.add_all(RestrictedRow(dataset_id=dataset, position=at, **own) for at in positions)
        touch(session)
    return row


def approve(service, row, *, rows=None):
    """What an approval writes; gives the sequence of the entry."""
    with service.db.begin() as session:
        entry = LedgerEntry(
            tenant_id=row.tenant_id,
            request_id=row.id,
            kind="approve",
            scope=row.scope,
            models=row.models,
            actor="test",
            created_at=clock(session),
        )
        session.add(entry)
        session.flush()
        own = {"tenant_id": row.tenant_id, "sequence": entry.sequence}
        targets = session.query(ForgetTarget.target).filter_by(request_id=row.id).all()
        session.add_all(LedgerTarget(target=target, **own) for (target,) in targets)
        for dataset, positions in (rows or {}).items():
            session.add_all(ErasedRow(dataset_id=dataset, position=at, **own) for at in positions)
        session.query(RestrictedRow).filter_by(request_id=row.id).delete()
        now = session.get_one(ForgetRequest, row.id)
        now.state, now.sequence = "unlearning", entry.sequence
        touch(session)
        return entry.sequence


def replaced(service, old, new):
    """What the publication of a forget job says of two versions."""
    with service.db.begin() as session:
        row, instead = session.get_one(Version, old.id), session.get_one(Version, new.id)
        row.state, instead.replaces_id = "retired", row.id
        touch(session)
