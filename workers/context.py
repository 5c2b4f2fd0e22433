"""Log lines of a job name it, whichever process writes them."""

from __future__ import annotations

from contextlib import AbstractContextManager

from app import ids, logs
from app.services.jobs import ClaimedJob


def job_context(claimed: ClaimedJob) -> AbstractContextManager[None]:
    """Lines logged inside carry the job, its tenant and model, and the request that made it."""
    return logs.context(
        request_id=claimed.request_id,
        job_id=ids.encode("job", claimed.id),
        tenant=claimed.tenant_id.hex,
        model=ids.encode("mdl", claimed.model_id) if claimed.model_id else None,
    )
