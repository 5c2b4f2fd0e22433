"""A worker's right to a job: a lease that it renews, a fencing number that every write must still name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session, aliased

from app.db import clock
from app.service import Service
from app.services.jobs.rows import ACTIVE, State, locked, log_line, say
from app.tables import Job


class Signal(StrEnum):
    """What whoever runs a job is to do with it."""

    CONTINUE = "continue"
    CANCEL = "cancel"  # a caller asked
    STOP = "stop"  # the worker leaves, or the job makes way: it is queued again, not counted
    LOST = "lost"  # the job is somebody else's, or closed


class LeaseLost(Exception):
    """The fencing number moved on: nothing may be written for this claim."""


class Stopped(Exception):
    """Raised at a safe point where the job is to end early; `signal` says how."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal.value)
        self.signal = signal


@dataclass(frozen=True)
class ClaimedJob:
    """What one claim of a job is given. `epoch` is its fencing number."""

    id: UUID
    tenant_id: UUID
    kind: str
    queue: str
    lane: UUID | None
    urgency: int
    model_id: UUID | None
    resource_id: UUID | None
    request: Mapping[str, Any]
    request_id: str | None
    actor: str
    attempt: int
    epoch: int
    halve_batch: bool  # the last attempt ran out of memory

    def dump(self) -> dict[str, Any]:
        """JSON values, for the process that computes."""
        return {name: v.hex if isinstance(v, UUID) else v for name, v in asdict(self).items()}

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> ClaimedJob:
        uuids = ("id", "tenant_id", "lane", "model_id", "resource_id")
        values: dict[str, Any] = {**tree}
        values.update({name: UUID(values[name]) for name in uuids if values[name] is not None})
        return cls(**values)


def renew(service: Service, claimed: ClaimedJob) -> Signal:
    """Extend the lease; the answer says whether to go on."""
    with service.db.begin() as session:
        now = clock(session)
        lease = timedelta(seconds=service.settings.jobs.lease_seconds)
        renewed = session.execute(
            update(Job)
            .where(*_held(claimed))
            .values(heartbeat_at=now, lease_expires_at=now + lease)
            .returning(Job.cancel_requested)
        ).one_or_none()
    return _signal(renewed)


def look(service: Service, claimed: ClaimedJob) -> Signal:
    """Read whether to go on: cancelled, lost, or in the way of another job."""
    with service.db.read() as session:
        row = session.execute(select(Job.cancel_requested).where(*_held(claimed))).one_or_none()
        signal = _signal(row)
        if signal is Signal.CONTINUE and _makes_way(session, claimed):
            return Signal.STOP
    return signal


def progress(service: Service, claimed: ClaimedJob, told: Mapping[str, Any], note: str = "") -> Signal:
    """Write how far the job is, and a line for its log; callers come at most once a second."""
    with service.db.begin() as session:
        row = session.execute(
            update(Job)
            .where(*_held(claimed))
            .values(progress=dict(told), revision=Job.revision + 1)
            .returning(Job.cancel_requested)
        ).one_or_none()
        if row is not None:
            now = clock(session)
            say(session, claimed.id, now, "progress", told)
            if note:
                log_line(session, claimed.id, now, note)
    return _signal(row)


def note(service: Service, claimed: ClaimedJob, message: str) -> None:
    """Write a line for the log of a job that is still held."""
    with service.db.begin() as session:
        if locked(session, select(Job).where(*_held(claimed))) is not None:
            log_line(session, claimed.id, clock(session), message)


def guard(session: Session, claimed: ClaimedJob) -> Job:
    """Hold the job's row for a publication. Raises `LeaseLost`, or `Stopped` where a cancel came first.

    From here on a cancel waits for this transaction, and finds the job finished.
    """
    job = locked(session, select(Job).where(*_held(claimed)))
    if job is None:
        raise LeaseLost
    if job.cancel_requested:
        raise Stopped(Signal.CANCEL)
    return job


def note_fenced(service: Service, claimed: ClaimedJob) -> None:
    """Count a claim that found its job in other hands; the count is all that it writes."""
    with service.db.begin() as session:
        session.execute(
            update(Job)
            .where(Job.id == claimed.id, Job.lease_epoch > claimed.epoch)
            .values(fenced=Job.fenced + 1)
        )


def hold(session: Session, claimed: ClaimedJob) -> Job:
    """Hold the job's row to close it, cancelled or not; raises `LeaseLost`."""
    job = locked(session, select(Job).where(*_held(claimed)))
    if job is None:
        raise LeaseLost
    return job


def _held(claimed: ClaimedJob) -> tuple[Any, ...]:
    return (Job.id == claimed.id, Job.lease_epoch == claimed.epoch, Job.state.in_(ACTIVE))


def _signal(row: Any) -> Signal:
    if row is None:
        return Signal.LOST
    return Signal.CANCEL if row.cancel_requested else Signal.CONTINUE


def _makes_way(session: Session, claimed: ClaimedJob) -> bool:
    """A job without a lane lets one pass that has one; an update lets its model forget first."""
    if claimed.lane is None:
        return _in_the_way(session, claimed)
    return claimed.kind == "update" and _is_to_forget(session, claimed.lane)


def _is_to_forget(session: Session, lane: UUID) -> bool:
    """Whether a forget job waits for this lane: what is computed there has erased rows, or builds on them."""
    waits = exists().where(
        Job.lane == lane,
        Job.kind == "forget",
        Job.state == State.QUEUED,
        Job.not_before <= clock(session),
    )
    return bool(session.scalar(select(waits)))


def _in_the_way(session: Session, claimed: ClaimedJob) -> bool:
    """Whether a more urgent job with a free lane waits for the worker that this one occupies."""
    other = aliased(Job)
    lane_is_held = exists().where(other.lane == Job.lane, other.state.in_(ACTIVE))
    return bool(
        session.scalar(
            select(
                exists().where(
                    Job.state == State.QUEUED,
                    Job.queue == claimed.queue,
                    Job.lane.is_not(None),
                    Job.urgency < claimed.urgency,
                    Job.not_before <= clock(session),
                    ~lane_is_held,
                )
            )
        )
    )
