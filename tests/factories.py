"""Rows for tests, with sensible defaults that keywords override."""

from app.ids import new
from app.services import jobs
from app.services.jobs import Urgency


def a_job(service, tenant, *, kind="nap", queue="cpu", lane=None, urgency=None, request=None, **given):
    """A queued job, rung for nobody."""
    with service.db.begin() as session:
        return jobs.new_job(
            session,
            tenant_id=tenant.id,
            kind=kind,
            queue=queue,
            lane=lane,
            urgency=urgency if urgency is not None else Urgency.ON_LANE if lane else Urgency.OFF_LANE,
            model_id=None,
            resource_id=None,
            request=request or {},
            actor="test",
            request_id=None,
            **given,
        )


def a_lane():
    return new()
