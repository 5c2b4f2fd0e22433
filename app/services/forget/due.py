"""When a request is due: calendar months in the tenant's time zone, and how urgent that makes its work."""

from __future__ import annotations

import calendar
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.errors import DeadlinePassed, ValidationFailed
from app.services.jobs.rows import Urgency
from app.tables import ForgetRequest, Job

Regulation = Literal["gdpr", "ccpa"]

# time that is left -> how much more urgent than an erasure that has time
NEAR = ((timedelta(0), 4), (timedelta(days=2), 3), (timedelta(days=7), 2), (timedelta(days=14), 1))
EARLY = timedelta(minutes=5)  # a client's clock may be that much ahead
FURTHER_MONTHS = 2  # of GDPR, Art. 12(3)
CCPA_DAYS, CCPA_EXTENDED_DAYS = 45, 90


def check(submitted_at: datetime | None, due_at: datetime | None, now: datetime) -> None:
    """Raise where a request comes from the future, or is due in the past."""
    if submitted_at is not None and submitted_at > now + EARLY:
        raise ValidationFailed("submitted_at is in the future", pointer="/submitted_at")
    if due_at is not None and due_at <= now:
        raise DeadlinePassed("due_at has passed", pointer="/due_at")


def by_law(regulation: str | None, submitted_at: datetime, zone: str) -> datetime:
    """When a request of that regulation is due; without one as GDPR says."""
    if regulation == "ccpa":
        return _later(submitted_at, zone, days=CCPA_DAYS)
    return _later(submitted_at, zone, months=1)


def extended(
    regulation: str | None, submitted_at: datetime, due_at: datetime, zone: str, months: int
) -> datetime:
    """The due date after the one extension: GDPR `months` (1 or 2) more, CCPA 90 days from receipt."""
    if regulation == "ccpa":
        return max(due_at, _later(submitted_at, zone, days=CCPA_EXTENDED_DAYS))
    if due_at == by_law(regulation, submitted_at, zone):
        return _later(submitted_at, zone, months=1 + months)  # 31 January, extended by two: 30 April
    return _later(due_at, zone, months=months)


def urgency(due_at: datetime, now: datetime) -> int:
    """The urgency of a job that a request waits for: 0, and less (claimed earlier) as its day comes near."""
    left = due_at - now
    return Urgency.ERASURE - next((more for limit, more in NEAR if left <= limit), 0)


def nearest(session: Session, request_ids: Collection[UUID]) -> datetime | None:
    """When the first of these requests, and of those that joined them, is due; `None`: none is asked for."""
    either = or_(ForgetRequest.id.in_(request_ids), ForgetRequest.duplicate_of.in_(request_ids))
    asked = either & ForgetRequest.state.not_in(("cancelled", "rejected"))
    return session.scalar(select(func.min(ForgetRequest.due_at)).where(asked))


def bring_forward(job: Job, due_at: datetime, now: datetime) -> None:
    """Make a job that waits keep a due date; it is never put off."""
    job.urgency = min(job.urgency, urgency(due_at, now))
    job.not_before = min(job.not_before, max(now, due_at))
    job.deadline_at = min(job.deadline_at or due_at, due_at)


def days_left(due_at: datetime, now: datetime) -> int:
    """Whole days until a request is due; negative once it is late."""
    return (due_at - now) // timedelta(days=1)


def _later(at: datetime, zone: str, *, months: int = 0, days: int = 0) -> datetime:
    """The same time of day on a later day of a zone; a month's last day where it has no such one."""
    local = at.astimezone(ZoneInfo(zone))
    count = local.year * 12 + local.month - 1 + months
    year, month = divmod(count, 12)
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    moved = local.replace(year=year, month=month + 1, day=day) + timedelta(days=days)
    return moved.astimezone(at.tzinfo)
