"""Forget requests that wait for their purge, written straight into the tables."""

from __future__ import annotations

from app import ids
from app.db import clock, touch
from app.tables import ErasedRow, ForgetRequest, LedgerEntry


def a_request(service, tenant_id, rows, *, models=None, state="purging", **changes):
    """A request for `rows` (dataset -> positions) as the last publication leaves it; `models`: only these."""
    id = ids.new()
    scope = None if models is None else [model.id.hex for model in models]
    with service.db.begin() as session:
        now = clock(session)
        entry = LedgerEntry(
            tenant_id=tenant_id,
            request_id=id,
            kind="approve",
            scope="samples",
            models=scope,
            actor="test",
            created_at=now,
        )
        session.add(entry)
        session.flush()
        values = {
            "id": id,
            "created_at": now,
            "tenant_id": tenant_id,
            "scope": "samples",
            "persons": 1,
            "shared_rows": "erase",
            "models": scope,
            "method": {"name": "auto", "params": {}},
            "accept": "exact",
            "submitted_at": now,
            "due_at": now.replace(year=now.year + 1),
            "state": state,
            "creator": "test",
            "sequence": entry.sequence,
            "stages": {"purging": {"started_at": now.isoformat(), "finished_at": None}},
        }
        row = ForgetRequest(**{**values, **changes})
        session.add(row)
        for dataset, positions in rows.items():
            for position in positions:
                session.add(
                    ErasedRow(
                        dataset_id=dataset.id,
                        position=position,
                        sequence=entry.sequence,
                        tenant_id=tenant_id,
                    )
                )
        touch(session)
    return row
