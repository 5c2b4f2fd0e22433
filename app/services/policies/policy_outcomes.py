"""What a publication means for the policy that asked for it: promoted, or held back and why."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import Forbidden
from app.services.jobs import ClaimedJob
from app.services.models import publish
from app.services.models.publish import Promotion
from app.services.policies import history, offers, policy_settings
from app.tables import Model, Version


def promote(
    session: Session, claimed: ClaimedJob, model: Model, version: Version, known_before: Collection[str]
) -> Promotion:
    """`publish.promote` for an update; the history says what came of one that a policy started."""
    request = claimed.request
    is_policy = bool(request.get("policy"))
    refused = _refusal(session, model, request["alias"]) if is_policy and request["alias"] else ""
    promotion = (
        Promotion(None, [], refused)
        if refused
        else publish.promote(
            session,
            model,
            version,
            request["alias"],
            known_before=known_before,
            may_promote=request["may_promote"],
            actor=f"job:{claimed.id.hex}",
            only_gated=is_policy,
        )
    )
    datasets = [UUID(hex=id) for id in request["datasets"]]
    offers.learned(session, model.id, datasets)
    if is_policy:
        _note(session, claimed, model, version, promotion, datasets)
    return promotion


def _refusal(session: Session, model: Model, alias: str) -> str:
    """Why the policy may not move its alias now: it, its key or the alias may be gone since the start."""
    policy = policy_settings.of(model)
    if policy is None or policy.promote == "never" or policy.alias != alias:
        return "the update policy was changed meanwhile"
    if not policy_settings.has_alias(session, model, alias):
        return f"there is no alias {alias!r} any more"
    try:
        policy_settings.may_train(session, model)
    except Forbidden as error:
        return error.detail
    return ""


def _note(
    session: Session,
    claimed: ClaimedJob,
    model: Model,
    version: Version,
    promotion: Promotion,
    datasets: list[UUID],
) -> None:
    asked = claimed.request["alias"]
    if asked is None:
        event, reason = "published", "the policy promotes nothing"
    elif promotion.alias is not None:
        event, reason = "promoted", "every gate holds"
    else:
        event, reason = "held-back", promotion.reason
    history.note(
        session,
        model,
        event,
        reason,
        actor=claimed.actor,
        datasets=datasets,
        job_id=claimed.id,
        version=version.number,
        alias=asked,
        gates=promotion.gates,
    )
