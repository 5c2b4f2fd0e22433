"""What becomes of requests by itself: lost commits made good, jobs more urgent as their day nears, holds that
end, purges that failed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import clock
from app.errors import AppError
from app.ledger_objects import Kind, LedgerObject
from app.service import Service
from app.services.erasure import entries
from app.services.forget import acts, approve, due, states
from app.services.forget.submit import ring
from app.services.jobs.rows import ACTIVE, State
from app.tables import ForgetItem, ForgetRequest, Job, LedgerEntry

log = logging.getLogger(__name__)

AT_ONCE = 1_000


def commit_ledger_objects(service: Service) -> int:
    """Make the database say what objects of the ledger say of requests that it has; returns how many it did
    not know. A process was killed between object and commit. Requests that are not in the database are left
    to a restore."""
    unknown = [name for name in service.ledger.names() if name not in service.ledger.settled]
    committed = 0
    for at in range(0, len(unknown), AT_ONCE):
        part = unknown[at : at + AT_ONCE]
        for request_id, kind in _unsaid(service, part):
            found = service.ledger.get(request_id, kind)
            try:
                committed += found is not None and _commit(service, found)
            except (AppError, IntegrityError):  # one that cannot be carried out holds no other up
                log.exception("a decision of the ledger could not be carried out")
    return committed


def keep_dates(service: Service) -> int:
    """Make queued forget jobs as urgent as their nearest due date wants, of requests and of those that joined
    them; returns how many changed."""
    with service.db.begin() as session:
        now = clock(session)
        waiting = session.execute(
            select(Job.id, Job.urgency, func.min(ForgetRequest.due_at))
            .join(ForgetItem, ForgetItem.job_id == Job.id)
            .join(
                ForgetRequest,
                or_(
                    ForgetRequest.id == ForgetItem.request_id,
                    ForgetRequest.duplicate_of == ForgetItem.request_id,
                ),
            )
            .where(Job.kind == "forget", Job.state == State.QUEUED, ForgetRequest.state.not_in(states.ENDED))
            .group_by(Job.id, Job.urgency)
        ).all()
        changed = 0
        for job_id, urgency, due_at in waiting:
            wanted = due.urgency(due_at, now)
            if wanted < urgency:
                mine = update(Job).where(Job.id == job_id, Job.state == State.QUEUED)
                session.execute(mine.values(urgency=wanted))
                changed += 1
    return changed


def end_holds(service: Service) -> int:
    """Let requests go on whose legal hold has run out; returns how many."""
    with service.db.read() as session:
        now = clock(session)
        query = select(ForgetRequest).where(
            ForgetRequest.hold.is_not(None), ForgetRequest.state.in_(("awaiting-approval", "locating"))
        )
        over = [row for row in session.scalars(query) if not states.held(row, now)]
    for row in over:
        queued: Sequence[Job] = []
        with service.db.begin() as session:
            entries.lock(session)
            request = acts.own(session, row.tenant_id, row.id)
            if request.hold is not None and not states.held(request, clock(session)):
                queued = acts.let_go(service, session, request, states.SYSTEM)
        ring(service, queued)
    return len(over)


def purge_again(service: Service) -> int:
    """Queue a purge for each tenant whose requests wait for one that nobody runs; returns how many."""
    with service.db.begin() as session:
        recent = clock(session) - timedelta(seconds=service.settings.jobs.orphan_seconds)
        queued = [states.queue_purge(session, tenant_id) for tenant_id in _stranded(session, recent)]
    made = [job for job in queued if job is not None]
    ring(service, made)
    return len(made)


def _stranded(session: Session, recent: datetime) -> Sequence[UUID]:
    """Tenants with requests in `purging` and no purge that is under way or young."""
    seen_to = exists().where(
        Job.lane == ForgetRequest.tenant_id,
        Job.kind == "purge",
        Job.state.in_((State.QUEUED, *ACTIVE)) | ((Job.state == State.FAILED) & (Job.created_at > recent)),
    )
    query = select(ForgetRequest.tenant_id).where(ForgetRequest.state == "purging", ~seen_to).distinct()
    return session.scalars(query).all()


def _unsaid(service: Service, names: Sequence[tuple[UUID, Kind]]) -> list[tuple[UUID, Kind]]:
    """Those of the decisions that the database does not say of a request that it has."""
    ids = [request_id for request_id, _ in names]
    with service.db.read() as session:
        there = set(session.scalars(select(ForgetRequest.id).where(ForgetRequest.id.in_(ids))))
        said = select(LedgerEntry.request_id, LedgerEntry.kind).where(LedgerEntry.request_id.in_(ids))
        known = {(request_id, kind) for request_id, kind in session.execute(said)}
    service.ledger.settled.update(name for name in names if name in known)
    return [name for name in names if name not in known and name[0] in there]


def _commit(service: Service, found: LedgerObject) -> bool:
    """Carry out a decision of a request that is in the database, unless that happened meanwhile."""
    actor = str(found.body["actor"])
    queued: Sequence[Job] = []
    with service.db.begin() as session:
        entries.lock(session)
        request = acts.own(session, UUID(hex=found.body["tenant"]), found.request_id)
        if found.kind == "approve":
            if request.state != "awaiting-approval":
                return False
            queued = approve.carry_out(service, session, request, actor)
        elif request.state == "cancelled":
            return False
        elif acts.taken(session, request.id):
            service.ledger.discard_lift(request.id)  # nobody was told that it was lifted, and it was not
            return False
        else:
            acts.take_back(service, session, request, actor)
    ring(service, queued)
    return True
