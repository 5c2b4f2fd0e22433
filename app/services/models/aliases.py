"""Aliases: movable names for versions, and which version each may name."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.errors import (
    AliasProtected,
    Forbidden,
    NotFound,
    SubjectRestricted,
    ValidationFailed,
    VersionNotReady,
    VersionTainted,
)
from app.schemas.aliases import AliasMoveRead, AliasPut, AliasRead
from app.schemas.faults import in_words
from app.schemas.updates import AliasName
from app.service import Caller, Service
from app.services.callers import audit
from app.services.erasure import ledger
from app.services.models import alias_history, models, taint, versions
from app.services.models.models import Check
from app.tables import Alias, Model, Version

if TYPE_CHECKING:
    from app.services.callers.idempotency import Once

LATEST = "latest"
MOST = 5  # versions that a refusal names
ALIAS_NAME: TypeAdapter[str] = TypeAdapter(AliasName)


def browse(service: Service, tenant_id: UUID, model_id: UUID) -> list[AliasRead]:
    """Every alias of a model."""
    with service.db.read() as session:
        return of_model(session, models.get(session, tenant_id, model_id).id)


def read(service: Service, tenant_id: UUID, model_id: UUID, name: str) -> AliasRead:
    """One alias; raises `NotFound`."""
    for alias in browse(service, tenant_id, model_id):
        if alias.name == name:
            return alias
    raise NotFound(f"there is no alias {name!r}")


def moves(
    service: Service, tenant_id: UUID, model_id: UUID, name: str, at: datetime | None
) -> list[AliasMoveRead]:
    """The history of an alias, newest first; with `at` only what was in force then."""
    with service.db.read() as session:
        id = models.get(session, tenant_id, model_id).id
        if at is None:
            return alias_history.of(session, id, name)
        return [alias_history.as_of(session, id, name, at)]


def of_model(session: Session, model_id: UUID) -> list[AliasRead]:
    """Every alias and what it names, by name; `latest` first, where there is a version."""
    rows = session.execute(
        select(Alias, Version)
        .join(Version, Version.id == Alias.version_id)
        .where(Alias.model_id == model_id)
        .order_by(Alias.name)
    )
    found = [AliasRead.of(alias, row.number, taint.serves(session, model_id, row)) for alias, row in rows]
    newest = versions.latest(session, model_id)
    if newest is None:
        return found
    return [AliasRead.latest(newest, taint.serves(session, model_id, newest)), *found]


def put(
    service: Service, caller: Caller, model_id: UUID, name: str, body: AliasPut, check: Check
) -> AliasRead:
    """Make an alias, or move the one that the caller read."""
    _check_name(name)
    with service.db.begin() as session:
        model = models.get(session, caller.tenant_id, model_id, lock=True)
        row = _row(session, model.id, name)
        check(row.revision if row else None)
        _may(caller, row, body.protected)
        version = versions.by_number(session, model, body.version, pointer="/version", replaced=True)
        allow(session, model, version, pointer="/version")
        moved = move(session, model, name, version, reason=body.reason, actor=caller.actor)
        if body.protected is not None:
            moved.protected = body.protected
        return AliasRead.of(moved, version.number, version.number)


def remove(service: Service, caller: Caller, model_id: UUID, name: str, check: Check) -> None:
    """Take an alias away; its history stays."""
    _check_name(name)
    with service.db.begin() as session:
        model = models.get(session, caller.tenant_id, model_id, lock=True)
        row = _row(session, model.id, name)
        if row is None:
            raise NotFound(f"there is no alias {name!r}")
        check(row.revision)
        _may(caller, row, None)
        session.delete(row)
        alias_history.write(session, model, name, None, alias_history.REMOVED, caller.actor)
        _record(session, model, name, "alias.removed", caller.actor)
        touch(session)


def rollback(
    service: Service,
    caller: Caller,
    model_id: UUID,
    name: str,
    reason: str,
    check: Check,
    once: Once | None = None,
) -> AliasRead:
    """Move an alias back to the version that it named before the present one."""
    _check_name(name)
    with service.db.begin() as session:
        if once:
            once.begin(session)
        model = models.get(session, caller.tenant_id, model_id, lock=True)
        row = _row(session, model.id, name)
        if row is None:
            raise absent(session, model, name)
        check(row.revision)
        _may(caller, row, None)
        version = alias_history.before(session, row)
        taint.refuse_tainted(session, version)
        if version.state != "ready":
            raise _no_way_back(session, model, row, version)
        allow(session, model, version)
        moved = move(session, model, name, version, reason=reason, actor=caller.actor)
        answer = AliasRead.of(moved, version.number, version.number)
        if once:
            body = answer.model_dump(mode="json")
            etag = {"ETag": f'"{answer.revision}"'}
            once.finish(session, status=200, body=body, headers=etag, resource_id=moved.id)
        return answer


def move(session: Session, model: Model, name: str, version: Version, *, reason: str, actor: str) -> Alias:
    """Point the alias at a version, with history and audit; the caller has checked that it may."""
    row = _row(session, model.id, name)
    if row is None:
        row = Alias(
            id=ids.new(),
            tenant_id=model.tenant_id,
            model_id=model.id,
            name=name,
            version_id=version.id,
            protected=False,
            revision=1 + alias_history.count(session, model.id, name),
            created_at=clock(session),
        )
        session.add(row)
    else:
        row.version_id, row.revision = version.id, row.revision + 1
    session.flush()
    alias_history.write(session, model, name, version.id, reason, actor)
    _record(session, model, name, "alias.moved", actor)
    touch(session)
    return row


def suspend(session: Session, model: Model, row: Alias, *, reason: str, actor: str) -> None:
    """Take an alias away of which no version may answer; its history says why."""
    session.delete(row)
    session.flush()
    alias_history.write(session, model, row.name, None, f"{reason}{alias_history.SUSPENDED}", actor)
    _record(session, model, row.name, "alias.suspended", actor)
    touch(session)


def named(session: Session, model: Model, name: str) -> Version | None:
    """The version that an alias names now."""
    row = _row(session, model.id, name)
    return None if row is None else session.get_one(Version, row.version_id)


def absent(
    session: Session, model: Model, name: str, pointer: str | None = None
) -> NotFound | VersionTainted:
    """What to say of an alias that names nothing: there is none, or a forget job suspended it."""
    why = alias_history.suspension(session, model.id, name)
    if why is None:
        return NotFound(f"the model has no alias {name!r}", pointer=pointer)
    possible = _possible(session, model, name)
    step = f"move it to {_numbers(possible)}" if possible else "teach a version and move it there"
    return VersionTainted(
        f"alias {name!r} is suspended ({why}); {step}",
        pointer=pointer,
        related=[versions.path(model.id, one.number) for one in possible],
    )


def allow(session: Session, model: Model, version: Version, pointer: str | None = None) -> None:
    """Raise unless an alias may move to the version: there, untainted, not replaced by a forget job, and free
    of restricted rows.

    A forget job asks nothing: it moves aliases to its replacements though a later entry may taint those.
    """
    name = f"version {version.number}"
    taint.refuse_tainted(session, version, pointer)
    if version.state != "ready":
        raise VersionNotReady(f"{name} is {version.state}", pointer=pointer)
    ledger.refuse_restricted(session, version, pointer)


def refusal(session: Session, model: Model, version: Version, name: str, *, may_promote: bool) -> str:
    """Why a job may not move the alias to the version; empty where it may."""
    row = _row(session, model.id, name)
    try:
        allow(session, model, version)
    except (VersionNotReady, VersionTainted, SubjectRestricted) as error:
        return error.detail
    protected = row is not None and row.protected and not may_promote
    return "the alias is protected" if protected else ""


def check_promotion(session: Session, caller: Caller, model: Model, name: str) -> None:
    """Raise where the caller may not have a job move this alias."""
    _may(caller, _row(session, model.id, name), None, pointer="/alias")


def _check_name(name: str) -> None:
    try:
        ALIAS_NAME.validate_python(name)
    except ValidationError as error:
        raise ValidationFailed(in_words(error.errors()[0]), pointer="alias") from None


def _may(caller: Caller, row: Alias | None, protected: bool | None, pointer: str | None = None) -> None:
    """Only scope `promote` moves a protected alias, or protects one, or lifts that."""
    if "promote" in caller.scopes or "admin" in caller.scopes:
        return
    if row is not None and row.protected:
        raise AliasProtected(f"alias {row.name!r} is protected: this needs scope promote", pointer=pointer)
    if protected:
        raise Forbidden("protecting an alias needs scope promote")


def _no_way_back(session: Session, model: Model, row: Alias, version: Version) -> VersionNotReady:
    """The refusal to go back to a version that is retired or purged, with those that the alias may name."""
    possible = _possible(session, model, row.name, but=row.version_id)
    choose = f"it can be moved to {_numbers(possible)}" if possible else "no other version can be used"
    return VersionNotReady(
        f"alias {row.name!r} named version {version.number} before, which is {version.state}: "
        f"what it stored was destroyed; {choose}",
        related=[versions.path(model.id, one.number) for one in possible],
    )


def _possible(session: Session, model: Model, name: str, but: UUID | None = None) -> list[Version]:
    """The newest versions that an alias may name."""
    ready = select(Version).where(Version.model_id == model.id, Version.state == "ready", Version.id != but)
    found = session.scalars(ready.order_by(Version.number.desc()))
    return [one for one in found if not refusal(session, model, one, name, may_promote=True)][:MOST]


def _numbers(possible: list[Version]) -> str:
    return ", ".join(str(one.number) for one in possible)


def _record(session: Session, model: Model, name: str, action: str, actor: str) -> None:
    resources: dict[str, UUID | str] = {"model": model.id, "alias": name}
    audit.record(session, tenant_id=model.tenant_id, actor=actor, action=action, resources=resources)


def _row(session: Session, model_id: UUID, name: str) -> Alias | None:
    return session.scalar(select(Alias).where(Alias.model_id == model_id, Alias.name == name))
