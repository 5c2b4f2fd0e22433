"""Tainted versions: what is refused of them, what may be used instead, and what serves meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.errors import Fault, VersionTainted
from app.services.erasure import ledger
from app.services.forget import due
from app.services.models import versions
from app.tables import ForgetRequest, LedgerEntry, Model, Version

RETRY = {"Retry-After": "5"}  # seconds; a forget job takes about that long


@dataclass(frozen=True)
class Served:
    """The version that answers, and until when where its model's policy sets a term."""

    version: Version
    due_at: datetime | None = None


def refuse_tainted(session: Session, version: Version, pointer: str | None = None) -> None:
    """Raise `VersionTainted` for a version that contains erased rows, or that a forget job has replaced.

    The error names the version to use instead: the replacement, or else the newest untainted one.
    """
    replaced = versions.replacement(session, version)
    entries = ledger.tainted(session, [version.id]).get(version.id)
    if replaced is None and not entries:
        return
    instead = instead_of(session, version)
    choose = f"choose {instead.number}" if instead else "no untainted version is left"
    name = f"version {version.number}"
    if replaced is not None:
        why = f"{name} contained erased rows and was replaced by version {replaced.number}"
    else:
        why = f"{name} is affected by {entries} completed erasure{'s' if entries != 1 else ''}"
    raise VersionTainted(
        f"{why}; {choose}",
        errors=[Fault(pointer or "/version", "tainted", choose)],
        related=[versions.path(version.model_id, instead.number)] if instead else [],
    )


def instead_of(session: Session, version: Version) -> Version | None:
    """What may be used in place of a version: its newest replacement, unless a later erasure concerns that
    too; then the newest untainted version of the model."""
    replaced = versions.replacement(session, version)
    if replaced is not None and replaced.state == "ready" and not ledger.tainted(session, [replaced.id]):
        return replaced
    return versions.newest_untainted(session, version.model_id)


def serving(session: Session, model: Model, version: Version, *, by_alias: bool) -> Served:
    """The version that answers for one that was asked for, by the model's `on_taint`.

    `serve-until-replaced`: itself, until the request that taints it is due; from then on as `fall-back`: the
    newest older version that is untainted, for an alias; a number stands for itself. `suspend`, and where
    nothing is left to fall back to: raises `VersionTainted`.
    """
    entries = ledger.taints(session, [version.id]).get(version.id)
    if not entries:
        return Served(version)
    policy = model.on_taint
    if policy == "serve-until-replaced":
        due_at = _due(session, entries)
        if due_at is None or due_at > clock(session):
            return Served(version, due_at)
        policy = "fall-back"
    older = _older(session, version) if policy == "fall-back" else None
    if older is not None and by_alias:
        return Served(older)
    instead = older or versions.newest_untainted(session, model.id)
    raise VersionTainted(
        f"version {version.number} contains erased rows and does not answer until it is replaced",
        pointer="/alias" if by_alias else "/version",
        related=[versions.path(model.id, instead.number)] if instead else [],
        headers=RETRY,
    )


def _older(session: Session, version: Version) -> Version | None:
    """The newest untainted version that is older; a replacement is as old as what it was made for."""
    age = {row.id: number for row, number in versions.by_age(session, version.model_id)}
    found = versions.untainted(session, version.model_id)
    return next((row for row, number in found if number < age.get(version.id, version.number)), None)


def _due(session: Session, entries: set[int]) -> datetime | None:
    """When the first of the requests behind these entries is due, or of those that joined them; a legal hold
    suspends that."""
    rows = session.execute(
        select(ForgetRequest.id, ForgetRequest.hold)
        .join(LedgerEntry, LedgerEntry.request_id == ForgetRequest.id)
        .where(LedgerEntry.sequence.in_(entries))
    ).all()
    return due.nearest(session, [id for id, hold in rows if hold is None])


def seconds_left(session: Session, served: Served) -> timedelta | None:
    """How long the answer holds, by the clock of the database."""
    return None if served.due_at is None else served.due_at - clock(session)


def serves(session: Session, model_id: UUID, version: Version) -> int | None:
    """The number of the version that answers for an alias on this one; None while it is suspended."""
    try:
        return serving(session, session.get_one(Model, model_id), version, by_alias=True).version.number
    except VersionTainted:
        return None
