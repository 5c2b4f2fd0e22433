"""Requests that a forget job leaves aside: versions could be cleaned of their rows only with rows that nobody
stores any more, or only by training a network where they insist on `exact`. They wait; the others of the job
go on, as they do where one is on hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from uuid import UUID

from app.db import touch
from app.errors import MissingData
from app.service import Service
from app.services import jobs
from app.services.forget import lacking
from app.services.forget.lacking import Lack, Refusal
from app.services.jobs import ClaimedJob
from workers import forget_plan
from workers.forget_entries import Entries
from workers.forget_plan import Plan, Task


def make(service: Service, claimed: ClaimedJob, entries: Entries, tell: Callable[[], None]) -> Plan:
    """The plan of a job, without requests that lack rows: these are `failed` from here on.

    Raises `MissingData` where no request is left.
    """
    plan = forget_plan.make(service, claimed, entries, tell)
    while lacks := _lacks(service, plan):
        assert claimed.model_id is not None
        with service.db.begin() as session:
            jobs.guard(session, claimed)
            lacking.wait(session, claimed.model_id, lacks)
            touch(session)
        entries = _without(plan.entries, lacks)
        if not entries.taken:
            raise MissingData("What the requests need is not there: see their exceptions")
        plan = forget_plan.make(service, claimed, entries, tell)
    return plan


def _lacks(service: Service, plan: Plan) -> dict[UUID, Lack | Refusal]:
    """What the requests of a plan lack that wait rather than lose versions, or than have networks trained."""
    tasks = [task for task in plan.tasks if task.way.unstored]
    refused = [task for task in plan.tasks if task.way.refused]
    with service.db.read() as session:
        waiting = lacking.may_wait(session, plan.entries.taken) if tasks or refused else set()
    rows: dict[UUID, set[tuple[UUID, int]]] = defaultdict(set)
    versions: dict[UUID, list[Task]] = defaultdict(list)
    for task in tasks:
        for request_id, missing in _blamed(task, plan.entries).items():
            rows[request_id] |= missing
            versions[request_id].append(task)
    found: dict[UUID, Lack | Refusal] = {
        request_id: Refusal(sum(request_id in task.requests for task in refused))
        for request_id in waiting & {id for task in refused for id in task.requests}
        if plan.entries.methods[request_id] == "exact"
    }
    for request_id in waiting & versions.keys():
        offer = plan.sent.get(request_id)
        found[request_id] = Lack(
            rows=len(rows[request_id]),
            versions=len(versions[request_id]),
            can_be_sent=all(task.way.can_be_sent for task in versions[request_id]),
            sent=offer.count if offer else 0,
            unmatched=offer.unmatched if offer else 0,
        )
    return found


def _blamed(task: Task, entries: Entries) -> Mapping[UUID, set[tuple[UUID, int]]]:
    """The requests for whose rows the version cannot be cleaned, and these rows."""
    missing = task.way.missing or task.learned
    found: dict[UUID, set[tuple[UUID, int]]] = defaultdict(set)
    for sequence, gone in entries.rows.items():
        hit = {(id, at) for id, positions in missing.items() for at in positions & gone.get(id, frozenset())}
        if hit:
            found[entries.request_of[sequence]] |= hit
    return found or {request_id: set() for request_id in task.requests}


def _without(entries: Entries, requests: Collection[UUID]) -> Entries:
    """The erasures of the others. What replaces a version has seen the ledger up to the first left aside."""
    aside = {sequence for sequence, id in entries.request_of.items() if id in requests}
    return replace(
        entries,
        taken=tuple(id for id in entries.taken if id not in requests),
        request_of={at: id for at, id in entries.request_of.items() if at not in aside},
        rows={at: rows for at, rows in entries.rows.items() if at not in aside},
        classes={at: names for at, names in entries.classes.items() if at not in aside},
        sequence=min([entries.sequence, *(at - 1 for at in aside)]),
    )
