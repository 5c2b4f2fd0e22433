"""Which version answers: an alias or a number, and the classes that it must not name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from app.errors import NotFound, Purged
from app.methods.networks.spec import InputSpec
from app.services.erasure import ledger
from app.services.models import aliases, models, versions
from app.tables import Alias, LedgerEntry, LedgerTarget, Model, ModelClass, Version, VersionClass


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


def resolve(
    session: Session, tenant_id: UUID, model_id: UUID, alias: str | None, number: int | None
) -> Target:
    """The version of a model that an alias or a number names; without either the latest.

    A tainted version is served until it is replaced. Raises `NotFound`, `Purged`, `VersionNotReady`.
    """
    model = models.get(session, tenant_id, model_id)
    if number is not None:
        version = versions.by_number(session, model, number, pointer="/version")
    else:
        alias = alias or aliases.LATEST
        version = _named(session, model_id, alias)
    if version.state == "purged":
        raise Purged(f"version {version.number} was destroyed")
    return _target(session, model, versions.usable(session, model, version.number, "/version"), alias)


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


def class_target(class_id: UUID) -> str:
    """How an entry of the ledger names a class."""
    return f"class:{class_id}"


def _target(session: Session, model: Model, version: Version, alias: str | None) -> Target:
    return Target(
        tenant_id=model.tenant_id,
        model_id=model.id,
        version_id=version.id,
        number=version.number,
        alias=alias,
        hidden=_hidden(session, version.id),
        input=InputSpec.model_validate(model.input),
    )


def _named(session: Session, model_id: UUID, alias: str) -> Version:
    if alias == aliases.LATEST:
        found = versions.newest_untainted(session, model_id)
    else:
        found = session.scalar(
            select(Version)
            .join(Alias, Alias.version_id == Version.id)
            .where(Alias.model_id == model_id, Alias.name == alias)
        )
    if found is None:
        raise NotFound(f"the model has no alias {alias!r}", pointer="/alias")
    return found


def _hidden(session: Session, version_id: UUID) -> frozenset[UUID]:
    rows = session.execute(
        select(ModelClass.id, ModelClass.retired_at)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .where(VersionClass.version_id == version_id)
    ).all()
    lift = aliased(LedgerEntry)
    lifted = exists().where(lift.request_id == LedgerEntry.request_id, lift.kind == "lift")
    erased = set(
        session.scalars(
            select(LedgerTarget.target)
            .join(LedgerEntry, LedgerEntry.sequence == LedgerTarget.sequence)
            .where(
                LedgerTarget.target.in_([class_target(id) for id, _ in rows]),
                LedgerEntry.kind == "approve",
                ~lifted,
            )
        )
    )
    return frozenset(id for id, retired in rows if retired or class_target(id) in erased)
