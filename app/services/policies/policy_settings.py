"""The update policy of a model: what one may say, who set it, and what that key may still do."""

from __future__ import annotations

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app import methods
from app.db import clock
from app.errors import (
    AliasProtected,
    Forbidden,
    InUse,
    MissingData,
    NotFound,
    UnsupportedTask,
    ValidationFailed,
)
from app.methods.base import Task
from app.schemas.policies import UpdatePolicy
from app.service import Caller
from app.services.models import heads
from app.tables import Alias, ApiKey, Model, Offer

AT = "/update_policy"
PROMOTES = frozenset({"promote", "admin"})


def of(model: Model) -> UpdatePolicy | None:
    """The policy that is set."""
    return UpdatePolicy.model_validate(model.update_policy) if model.update_policy else None


def put(session: Session, caller: Caller, model: Model, policy: UpdatePolicy | None, memory: int) -> None:
    """Set a policy that acts as this caller, or take it away, under the lock of the model's row; `memory` is
    what a job has in bytes."""
    if policy is None:
        model.update_policy = model.policy_key_id = model.policy_set_at = None
        return
    _check_fields(policy)
    if policy.method is not None:
        _check_method(model, policy.method.name, memory)
    if policy.alias is not None:
        _check_alias(session, caller, model, policy.alias)
    model.update_policy = policy.model_dump(mode="json")
    model.policy_key_id, model.policy_set_at = caller.key_id, clock(session)


def check_model(session: Session, model: Model) -> None:
    """Refuse a change that leaves a policy to promote what nothing measures, or what it learned from, or to
    choose parameters on nothing."""
    policy = of(model)
    if policy is not None and policy.method is not None and model.evaluation_id is None:
        method = methods.BY_NAME[policy.method.name]
        if method.selects(policy.method.params.model_dump()):
            raise ValidationFailed(
                f"the update policy has {method.name} choose its parameters on an evaluation dataset, and "
                "there is none",
                pointer="/evaluation",
            )
    if policy is not None and policy.promote != "never":
        if model.task == Task.REGRESSION:
            raise UnsupportedTask("no gate measures a regression", pointer=f"{AT}/promote")
        if not any(gate is not None for gate in model.gates.values()):
            raise ValidationFailed(
                "the update policy promotes if gates pass, and there is no gate", pointer="/gates"
            )
    trains_on_it = exists().where(
        Offer.model_id == model.id, Offer.dataset_id == model.evaluation_id, Offer.state != "refused"
    )
    if model.evaluation_id and session.scalar(select(trains_on_it)):
        raise InUse(
            "this dataset was sent for the model to learn: it cannot measure it", pointer="/evaluation"
        )


def scopes(session: Session, model: Model) -> frozenset[str]:
    """What the key that set the policy may do now; raises `Forbidden` where it may not train any more."""
    return frozenset(may_train(session, model).scopes)


def may_train(session: Session, model: Model) -> ApiKey:
    """The key that set the policy; raises `Forbidden` where it may not train any more."""
    key = session.get(ApiKey, model.policy_key_id) if model.policy_key_id else None
    if key is None or key.tenant_id != model.tenant_id:
        raise Forbidden("the API key that set the policy is not there")
    if key.revoked_at is not None:
        raise Forbidden("the API key that set the policy was revoked")
    if key.expires_at is not None and key.expires_at <= clock(session):
        raise Forbidden("the API key that set the policy has expired")
    if not {"train", "admin"} & set(key.scopes):
        raise Forbidden("the API key that set the policy has no scope train")
    return key


def actor(model: Model) -> str:
    """How audit and history name whom the policy acts as."""
    return f"key:{model.policy_key_id.hex}" if model.policy_key_id else "policy"


def has_alias(session: Session, model: Model, name: str) -> bool:
    """Whether the model has an alias of that name now."""
    return _alias(session, model, name) is not None


def _check_fields(policy: UpdatePolicy) -> None:
    given = policy.model_fields_set - {"when"}
    if policy.when == "manual" and given:
        raise ValidationFailed("a manual policy has no other field", pointer=f"{AT}/{min(given)}")
    if policy.when != "manual" and policy.method is None:
        raise ValidationFailed("say the method that learns the rows", pointer=f"{AT}/method")
    if policy.when == "schedule" and policy.max_wait_seconds is None:
        raise ValidationFailed("a schedule needs its period", pointer=f"{AT}/max_wait_seconds")
    if policy.when == "schedule" and policy.min_rows is not None:
        raise ValidationFailed("a schedule takes whatever waits", pointer=f"{AT}/min_rows")
    if (policy.promote == "never") != (policy.alias is None):
        raise ValidationFailed(
            "an alias goes with promote if_gates_pass, and needs it", pointer=f"{AT}/alias"
        )


def _check_method(model: Model, name: str, memory: int) -> None:
    method = methods.BY_NAME[name]
    if Task(model.task) not in method.tasks:
        raise UnsupportedTask(f"{name} does not serve task {model.task}", pointer=f"{AT}/method/name")
    if method.trains_network:
        raise MissingData(
            f"{name} trains the first version of a model; a policy needs a method that adds to it",
            pointer=f"{AT}/method/name",
        )
    if method.statistics:
        heads.check_memory(method.memory, heads.width(model), memory, pointer=f"{AT}/method/name")


def _check_alias(session: Session, caller: Caller, model: Model, name: str) -> None:
    row = _alias(session, model, name)
    if row is None:
        raise NotFound(f"there is no alias {name!r}", pointer=f"{AT}/alias")
    if row.protected and not caller.may("promote"):
        raise AliasProtected(f"alias {name!r} is protected: this needs scope promote", pointer=f"{AT}/alias")


def _alias(session: Session, model: Model, name: str) -> Alias | None:
    return session.scalar(select(Alias).where(Alias.model_id == model.id, Alias.name == name))
