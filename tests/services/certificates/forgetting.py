"""Requests as a forget leaves them, written into the tables: a version made anew without the erased rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from app import ids
from app.db import clock
from app.services import certificates
from app.tables import Dataset, ForgetItem, ForgetRequest, ForgetTarget, LedgerEntry, Model, Version
from tests.services.learning import a_dataset, a_model, erase, learn, rows

EXACT = {"expansion": {"width": 12, "seed": 2**60}}


@dataclass(frozen=True)
class Forgotten:
    """What a test needs of a request that is done."""

    request: ForgetRequest
    model: Model
    dataset: Dataset
    old: Version
    new: Version


def a_request(service, tenant, *, sequence=None, **changes: Any) -> ForgetRequest:
    """A request of one person that is done."""
    with service.db.begin() as session:
        now = clock(session)
        values = {
            "id": ids.new(),
            "created_at": now,
            "tenant_id": tenant.id,
            "scope": "subject",
            "persons": 1,
            "shared_rows": "erase",
            "method": {"name": "auto", "params": {}},
            "accept": "exact",
            "regulation": "GDPR",
            "external_id": "ticket 7 <b>",
            "submitted_at": now,
            "due_at": now + timedelta(days=30),
            "state": "completed",
            "creator": "key:test",
            "decider": "key:test",
            "sequence": sequence,
            "stages": {"received": {"started_at": "2026-01-05T09:00:00Z", "finished_at": None}},
            "evidence": {"shards_rewritten": 2, "note": "never copied"},
            **changes,
        }
        request = ForgetRequest(**values)
        session.add(request)
        session.flush()
        target = ForgetTarget(
            request_id=request.id, person=0, target=f"subject:{'ab' * 32}", tenant_id=tenant.id
        )
        session.add(target)
    return request


def forgotten(service, tenant, caller, method="analytic", params=None, *, gone=(0, 5), **model: Any):
    """A version that learned a dataset, rows erased from it, and the version made of those that are left."""
    made = a_model(service, caller, **(EXACT if method == "analytic" and not model else model))
    dataset = a_dataset(service, tenant.id, rows(ant=7, bee=6, cat=5))
    old = learn(service, caller, made, [dataset], method, params)
    entry = erase(service, tenant.id, dataset, *gone)
    with service.db.begin() as session:
        session.get_one(Version, old.id).state = "retired"
    new = learn(service, caller, made, [dataset], method, params, on_conflict="extend")
    with service.db.read() as session:
        sequence = session.scalar(select(LedgerEntry.sequence).filter_by(request_id=entry))
    request = a_request(service, tenant, sequence=sequence)
    replaced(service, request, old, new)
    return Forgotten(request, made, dataset, old, new)


def replaced(service, request, old, new, **detail: Any) -> None:
    """What the forget job writes of one version; `new` None: nothing usable was left."""
    told = {
        "number": old.number,
        "replacement": new and new.number,
        "replacement_id": new and new.id.hex,
        "way": "subtract" if new else "drop",
        "guarantee": "exact",
        "checks": {"rows_left": 16, "residual": 1e-22},
        "seconds": 0.25,
        **detail,
    }
    with service.db.begin() as session:
        session.get_one(Version, old.id).state = "retired"
        if new is not None:
            session.get_one(Version, new.id).replaces_id = old.id
        session.add(
            ForgetItem(
                request_id=request.id,
                kind="version",
                resource_id=old.id,
                tenant_id=request.tenant_id,
                state="done",
                detail=told,
            )
        )


def issued(service, request) -> bytes:
    """The text of the request's certificate, issued now."""
    with service.db.begin() as session:
        found = certificates.issue(service, session, session.get_one(ForgetRequest, request.id))
        return found.body.encode()
