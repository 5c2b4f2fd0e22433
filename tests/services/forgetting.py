"""Forget requests for tests: what a receipt and an approval write, and the job that follows."""

from __future__ import annotations

from datetime import timedelta

from app import ids
from app.db import clock, touch
from app.services.erasure import entries
from app.services.forget import approve
from app.tables import ForgetItem, ForgetRequest, ForgetTarget, LedgerEntry, Version
from tests.services.learning import run_next


def received(service, tenant, targets, *, scope="samples", **changes):
    """A request that waits for its approval."""
    with service.db.begin() as session:
        now = clock(session)
        values = {
            "id": ids.new(),
            "tenant_id": tenant.id,
            "created_at": now,
            "scope": scope,
            "persons": 1,
            "shared_rows": "erase",
            "models": None,
            "method": {"name": "auto", "params": {}},
            "accept": "exact",
            "submitted_at": now,
            "due_at": now + timedelta(days=30),
            "state": "awaiting-approval",
            "creator": "test",
            "stages": {},
            "evidence": {},
            "exceptions": [],
            "reminders": [],
        }
        request = ForgetRequest(**{**values, **changes})
        session.add(request)
        session.flush()
        for target in targets:
            session.add(ForgetTarget(request_id=request.id, person=0, target=target, tenant_id=tenant.id))
    return request


def approved(service, tenant, targets, **changes):
    """A request that was approved: its entry and rows stand in the ledger, and its jobs are queued."""
    request = received(service, tenant, targets, **changes)
    with service.db.begin() as session:
        entries.lock(session)
        row = session.get_one(ForgetRequest, request.id)
        approve.carry_out(service, session, row, "test")
        touch(session)
    return request


def rows_of(dataset, *positions):
    """Targets that name rows of a dataset."""
    return [f"row:{dataset.id.hex}:{position}" for position in positions]


def forget(service, tenant, dataset, *positions, **changes):
    """Approve the erasure of rows and run the job of the model; gives the request and the job."""
    request = approved(service, tenant, rows_of(dataset, *positions), **changes)
    return request, run_next(service)


def forget_class(service, tenant, class_id, **changes):
    """Approve the erasure of a class and run the job of the model; gives the request and the job."""
    request = approved(service, tenant, [f"class:{class_id.hex}"], scope="class", **changes)
    return request, run_next(service)


def request_of(service, request):
    with service.db.read() as session:
        return session.get_one(ForgetRequest, request.id)


def items_of(service, request, kind="version"):
    """The detail of a request's items of a kind, by resource."""
    with service.db.read() as session:
        found = session.query(ForgetItem).filter_by(request_id=request.id, kind=kind)
        return {item.resource_id: item for item in found}


def replacement_of(service, version):
    """The version that replaces one; None where none does."""
    with service.db.read() as session:
        return session.query(Version).filter_by(replaces_id=version.id).one_or_none()


def as_it_is(service, version):
    with service.db.read() as session:
        return session.get_one(Version, version.id)


def entry_of(service, request):
    with service.db.read() as session:
        return session.query(LedgerEntry).filter_by(request_id=request.id, kind="approve").one()
