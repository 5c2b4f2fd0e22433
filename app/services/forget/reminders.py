"""Saying that a request is due soon, while it is not done: to its callback, and in the audit chain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services.forget import states
from app.tables import ForgetRequest

DAYS = (7, 2)  # before the due date, the earliest first
EVENT = "forget.due_soon"
AT_ONCE = 500  # requests of one transaction


def remind(service: Service) -> int:
    """Announce requests that came within one of `DAYS` of their due date; returns how many.

    Each day once. One that was asked for, or found again, within several of them is announced once for all;
    one that is late is not due soon: every list shows it as overdue.
    """
    with service.db.read() as session:
        near = _near(session, clock(session))
    announced = 0
    for at in range(0, len(near), AT_ONCE):
        with service.db.begin() as session:
            now = clock(session)
            for request in states.lock(session, near[at : at + AT_ONCE]):
                announced += _announce(session, request, now)
    return announced


def _near(session: Session, now: datetime) -> Sequence[UUID]:
    """Open requests that something is to be said of."""
    query = select(ForgetRequest).where(
        ForgetRequest.state.not_in(states.ENDED),
        ForgetRequest.due_at > now,
        ForgetRequest.due_at <= now + timedelta(days=max(DAYS)),
    )
    return [row.id for row in session.scalars(query.order_by(ForgetRequest.id)) if _unsaid(row, now)]


def _unsaid(request: ForgetRequest, now: datetime) -> list[int]:
    """Days of `DAYS` that have begun and were not announced."""
    left = request.due_at - now
    return [days for days in DAYS if left <= timedelta(days=days) and days not in request.reminders]


def _announce(session: Session, request: ForgetRequest, now: datetime) -> bool:
    unsaid = _unsaid(request, now)
    if request.state in states.ENDED or request.due_at <= now or not unsaid:
        return False
    request.reminders = [*request.reminders, *unsaid]
    states.tell(session, request, EVENT, states.SYSTEM)
    return True
