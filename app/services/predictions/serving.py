"""Which version answers: an alias or a number, and the classes that it must not name."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Purged
from app.methods.networks.spec import InputSpec
from app.services.erasure import ledger
from app.services.models import aliases, models, taint, versions
from app.tables import Model, ModelClass, Version, VersionClass


@dataclass(frozen=True)
class Target:
    """A version that was asked for, valid until the database changes."""

    tenant_id: UUID
    model_id: UUID
    version_id: UUID
    number: int
    alias: str | None  # None where the number was given
    hidden: frozenset[UUID]  # classes that are retired or erased: never predicted
    input: InputSpec
    instead_of: int | None = None  # the version that the alias names, where another one answers for it
    until: float = inf  # `time.monotonic()` at which a tainted version ceases to answer


def resolve(
    session: Session, tenant_id: UUID, model_id: UUID, alias: str | None, number: int | None
) -> Target:
    """The version of a model that an alias or a number names; without either the latest.

    A tainted version is served as its model's `on_taint` says. Raises `NotFound`, `Purged`,
    `VersionNotReady`, and `VersionTainted` where nothing may answer.
    """
    model = models.get(session, tenant_id, model_id)
    if number is not None:
        version = versions.by_number(session, model, number, pointer="/version")
    else:
        alias = alias or aliases.LATEST
        version = _named(session, model, alias)
    if version.state == "purged":
        raise Purged(f"version {version.number} was destroyed")
    version = versions.usable(session, model, version.number, "/version")
    served = taint.serving(session, model, version, by_alias=number is None)
    target = _target(session, model, served.version, alias)
    if (left := taint.seconds_left(session, served)) is not None:
        target = replace(target, until=time.monotonic() + left.total_seconds())
    return target if served.version is version else replace(target, instead_of=version.number)


def instead(session: Session, target: Target) -> list[Target]:
    """Versions that may answer for one that is damaged: ready and untainted, newest first."""
    model = session.get_one(Model, target.model_id)
    rows = session.scalars(
        select(Version)
        .filter_by(model_id=target.model_id, state="ready")
        .where(Version.id != target.version_id)
        .order_by(Version.number.desc())
    ).all()
    tainted = ledger.tainted(session, [row.id for row in rows])
    return [_target(session, model, row, target.alias) for row in rows if row.id not in tainted]


def gone(session: Session, held: Iterable[UUID]) -> set[UUID]:
    """Those of these versions that are not to be used any more: retired or purged."""
    return set(session.scalars(select(Version.id).where(Version.id.in_(held), Version.state != "ready")))


def _target(session: Session, model: Model, version: Version, alias: str | None) -> Target:
    return Target(
        tenant_id=model.tenant_id,
        model_id=model.id,
        version_id=version.id,
        number=version.number,
        alias=alias,
        hidden=_hidden(session, version),
        input=InputSpec.model_validate(model.input),
    )


def _named(session: Session, model: Model, alias: str) -> Version:
    if alias == aliases.LATEST:
        found = versions.latest(session, model.id)
    else:
        found = aliases.named(session, model, alias)
    if found is None:
        raise aliases.absent(session, model, alias, pointer="/alias")
    return found


def _hidden(session: Session, version: Version) -> frozenset[UUID]:
    rows = session.execute(
        select(ModelClass.id, ModelClass.retired_at)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .where(VersionClass.version_id == version.id)
    ).all()
    retired = {id for id, retired_at in rows if retired_at is not None}
    return frozenset(retired | ledger.erased_classes(session, version.model_id, {id for id, _ in rows}))
