"""Work: jobs, what they told on the way, what they left for a successor, and who sweeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, Sequence, WithId

HOLDS_LANE = "lane IS NOT NULL AND state IN ('running', 'cancelling')"


class Job(WithId, Base):
    """One queued run. Terminal states (succeeded, failed, cancelled) are final.

    `lane` is the model for what writes one; the partial unique index lets one job hold it. `lease_epoch`
    is the fencing number: it grows with every claim and every publication must still name it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "uq_jobs_lane_holder",
            "lane",
            unique=True,
            sqlite_where=text(HOLDS_LANE),
            postgresql_where=text(HOLDS_LANE),
        ),
        Index(None, "state", "queue"),
        Index(None, "tenant_id", "created_at"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str]  # update, purge, ...
    queue: Mapped[str]  # gpu, cpu, io
    lane: Mapped[UUID | None]
    urgency: Mapped[int]  # smaller is claimed first: erasure 0, work on a lane 10, work without 20
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id"))
    resource_id: Mapped[UUID | None]
    request: Mapped[dict[str, Any]]  # what the runner needs: method, params, base, alias, ...
    request_id: Mapped[str | None]  # X-Request-Id of the call
    actor: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    lost: Mapped[int] = mapped_column(default=0)  # attempts that ended with their worker
    expired: Mapped[int] = mapped_column(default=0)  # leases that the sweep took back
    fenced: Mapped[int] = mapped_column(default=0)  # claims that came too late to write anything
    ooms: Mapped[int] = mapped_column(default=0)  # attempts that ended out of memory
    stalls: Mapped[int] = mapped_column(default=0)  # times in a row that something it needs was away
    stalled_since: Mapped[datetime | None]
    max_attempts: Mapped[int]
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    not_before: Mapped[datetime]
    queued_at: Mapped[datetime]
    rung_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    lease_epoch: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    revision: Mapped[int] = mapped_column(default=1)


class JobDataset(Base):
    """A dataset that a job reads, so that an erasure finds the jobs it must stop."""

    __tablename__ = "job_datasets"
    __table_args__ = (Index(None, "dataset_id"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)


class JobEvent(Base):
    """A line of a job's story: state, progress, log or done. `sequence` is what SSE resumes from."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "sequence"),)

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime]
    event: Mapped[str]
    data: Mapped[dict[str, Any]]


class Checkpoint(WithId, Base):
    """The newest state that a long job saved, encrypted; it goes with the job's end."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    ledger_sequence: Mapped[int]  # a state made before a newer erasure of its rows is not resumed
    left_out: Mapped[dict[str, Any]]
    file_id: Mapped[UUID]
    key_id: Mapped[UUID]


class Holder(Base):
    """Who holds a duty that only one process may do, such as the sweep, and until when."""

    __tablename__ = "holders"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    expires_at: Mapped[datetime]
