"""The audit chain on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from app.schemas.base import Answer


class AuditEventRead(Answer):
    """One change: who, what, on which ids."""

    sequence: int
    created_at: datetime
    actor: str = Field(description="`key:` and an API key, `job:` and a job, `operator` or `system`.")
    action: str = Field(description="Such as `alias.moved`.")
    resources: dict[str, Any] = Field(description="Kind and id of what was changed.")
    previous_hash: str
    hash: str = Field(description="SHA-256 over this event and the hash before it.")


class AuditVerdict(Answer):
    """The chain of the whole service, recomputed."""

    intact: bool
    events: int = Field(description="Events that fit, from the first one on.")
    head: str = Field(description="Hash of the last one that fits.")
    broken_at: int | None = Field(description="Sequence of the first event that does not fit.")
