"""One purge job: destroys what a deleted dataset or model, retired versions, or erased rows left. Every step
may be repeated."""

from __future__ import annotations

from uuid import UUID

from app.service import Service
from app.services import jobs
from app.services.callers import audit
from app.services.erasure import forgotten, purges
from app.services.jobs import ClaimedJob
from app.services.models import retention
from workers.progress import Reporter


def run(service: Service, claimed: ClaimedJob, report: Reporter) -> None:
    """Destroy keys, then files, then rows; a lost worker's successor goes on where it stopped."""

    def tell(fraction: float) -> None:
        report(fraction, "destroying")

    if "erasure" in claimed.request:
        kind, id = "erasure", UUID(hex=claimed.request["erasure"])
        result = {"requests": len(forgotten.purge(service, id, tell))}
    elif "dataset" in claimed.request:
        kind, id = "dataset", UUID(hex=claimed.request["dataset"])
        result = {"shards": purges.purge_dataset(service, id, tell)}
    elif "retired" in claimed.request:
        kind, id = "versions", UUID(hex=claimed.request["retired"])
        result = {"versions": retention.purge_retired(service, id, tell)}
    else:
        kind, id = "model", UUID(hex=claimed.request["model"])
        result = {"versions": purges.purge_model(service, id, tell)}
    with service.db.begin() as session:
        jobs.finish(session, claimed, result)
        audit.record(
            session,
            tenant_id=claimed.tenant_id,
            actor=claimed.actor,
            action=f"{kind}.purged",
            resources={"model" if kind == "versions" else kind: id, "job": claimed.id},
        )
