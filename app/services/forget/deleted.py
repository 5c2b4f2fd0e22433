"""What requests still had to do on a model that is deleted: nothing. Its versions go as they are."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.services.forget import lacking, states
from app.tables import ForgetItem, Job

REASON = "the model was deleted"


def let_model_go(session: Session, model_id: UUID) -> Job | None:
    """Let every request that waited for a model's job go on without it; the purge to ring for where one was
    queued. The caller holds `entries.lock` and the model's row, and has cancelled its jobs."""
    waiting = select(ForgetItem.request_id).where(
        ForgetItem.kind == "model",
        ForgetItem.resource_id == model_id,
        ForgetItem.state.not_in(("done", "cancelled")),
    )
    found = session.scalars(waiting).all()
    name = ids.encode("mdl", model_id)
    for request in states.lock(session, found):
        others = [one for one in request.exceptions if one.get("model") != name]
        own = [one for one in request.exceptions if one.get("model") == name]
        request.exceptions = [*others, *lacking.without(own)]
    session.flush()
    return states.model_done(session, model_id, found, {"reason": REASON})
