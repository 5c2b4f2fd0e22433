"""Jobs on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from app import ids
from app.ids import JobId, ModelId
from app.schemas.base import Answer
from app.tables import Job, JobEvent

DONE = ("succeeded", "failed", "cancelled")
RESOURCES = {"purge": "dst", "upgrade": "upg", "forget": "fgt", "verify": "fgt"}  # prefixes of ids by kind

JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
JobKind = Literal["update", "forget", "verify", "drill", "upgrade", "backfill", "purge", "reconcile"]


class ProgressRead(Answer):
    """How far the attempt is."""

    fraction: float = Field(0.0, description="0 to 1; never falls within an attempt.")
    phase: str = ""
    message: str = ""
    eta_seconds: int | None = None


class JobError(Answer):
    """Why a job has no result."""

    cause: str = Field(
        description="invalid-input, out-of-memory, worker-lost, timeout, dependency, artifact-corrupt, "
        "storage-full, superseded-by-erasure, internal or cancelled."
    )
    detail: str = ""
    errors: list[dict[str, Any]] = Field(default=[], description="As in a problem: pointer, code, message.")


class JobLinks(Answer):
    """Where the job's story is."""

    events: str
    logs: str


class JobRead(Answer):
    """One queued run of work."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "job_01jd8x4r9kf3v5n2m7q6t0a1bc",
                "kind": "update",
                "state": "running",
                "done": False,
                "model": "mdl_01jd8x4r9kf3v5n2m7q6t0a1bc",
                "resource": None,
                "attempt": 1,
                "max_attempts": 3,
                "progress": {"fraction": 0.42, "phase": "train", "message": "epoch 3/7", "eta_seconds": 38},
                "created_at": "2026-01-05T09:00:00Z",
                "queued_at": "2026-01-05T09:00:00Z",
                "started_at": "2026-01-05T09:00:00.1Z",
                "finished_at": None,
                "heartbeat_at": "2026-01-05T09:00:15Z",
                "deadline_at": None,
                "worker": "cpu-0",
                "blocked_by": [],
                "cancel_requested": False,
                "retry_of": None,
                "result": None,
                "error": None,
                "links": {
                    "events": "/v1/jobs/job_01jd8x4r9kf3v5n2m7q6t0a1bc/events",
                    "logs": "/v1/jobs/job_01jd8x4r9kf3v5n2m7q6t0a1bc/logs",
                },
            }
        }
    )

    id: JobId
    kind: str
    state: str = Field(
        description="queued, blocked (queued, and its model has a writer), running, cancelling; "
        "succeeded, failed and cancelled are final."
    )
    done: bool
    model: ModelId | None
    resource: str | None = Field(description="What the job works on, where that is not a model.")
    attempt: int
    max_attempts: int
    progress: ProgressRead
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    deadline_at: datetime | None
    worker: str | None
    blocked_by: list[JobId] = Field(description="Jobs that must end before this one may start.")
    cancel_requested: bool
    retry_of: JobId | None
    result: dict[str, Any] | None = Field(description="Of a job that succeeded.")
    error: JobError | None = Field(description="Of one that failed or was cancelled.")
    links: JobLinks

    @classmethod
    def of(cls, job: Job, blocked_by: Sequence[UUID] = ()) -> JobRead:
        """A row as clients see it; `blocked_by` is derived by whoever read the row."""
        name = ids.encode("job", job.id)
        prefix = RESOURCES.get(job.kind) if job.resource_id != job.model_id else None
        return cls(
            id=job.id,
            kind=job.kind,
            state="blocked" if blocked_by else job.state,
            done=job.state in DONE,
            model=job.model_id,
            resource=ids.encode(prefix, job.resource_id) if prefix and job.resource_id else None,
            attempt=job.attempt or 0,
            max_attempts=job.max_attempts,
            progress=ProgressRead.model_validate(job.progress or {}),
            created_at=job.created_at,
            queued_at=job.queued_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            heartbeat_at=job.heartbeat_at,
            deadline_at=job.deadline_at,
            worker=job.lease_owner,
            blocked_by=list(blocked_by),
            cancel_requested=bool(job.cancel_requested),
            retry_of=job.retry_of,
            result=job.result,
            error=JobError.model_validate(job.error) if job.error else None,
            links=JobLinks(events=f"/v1/jobs/{name}/events", logs=f"/v1/jobs/{name}/logs"),
        )


class LogLine(Answer):
    """A line that a job wrote for its owner."""

    sequence: int
    created_at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, line: JobEvent) -> LogLine:
        return cls(sequence=line.sequence, created_at=line.created_at, data=line.data)
