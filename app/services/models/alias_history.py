"""The history of aliases: every move of each, and what was live when."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import NotFound, VersionNotReady
from app.schemas.aliases import AliasMoveRead
from app.tables import Alias, AliasMove, Model, Version

REMOVED = "removed"  # the reason of a move to no version that somebody asked for
SUSPENDED = "; suspended"  # how the reason ends of one that a forget job made


def of(session: Session, model_id: UUID, name: str) -> list[AliasMoveRead]:
    """Every move of an alias, newest first; also of one that was removed."""
    rows = session.execute(
        select(AliasMove, Version.number)
        .outerjoin(Version, Version.id == AliasMove.version_id)
        .where(AliasMove.model_id == model_id, AliasMove.name == name)
        .order_by(AliasMove.created_at.desc(), AliasMove.id.desc())
    )
    found = [AliasMoveRead.of(move, number) for move, number in rows]
    if not found:
        raise NotFound(f"there never was an alias {name!r}")
    return found


def as_of(session: Session, model_id: UUID, name: str, at: datetime) -> AliasMoveRead:
    """The move that was in force at an instant; raises `NotFound` where the alias named nothing then."""
    for move in of(session, model_id, name):
        if move.created_at <= at:
            if move.version is None:
                break
            return move
    raise NotFound(f"alias {name!r} named no version at {at.isoformat()}")


def before(session: Session, row: Alias) -> Version:
    """The version that the alias named before the present one."""
    moves = session.scalars(
        select(AliasMove.version_id)
        .where(AliasMove.model_id == row.model_id, AliasMove.name == row.name)
        .order_by(AliasMove.created_at.desc(), AliasMove.id.desc())
    )
    for version_id in moves:
        if version_id not in (None, row.version_id):
            return session.get_one(Version, version_id)
    raise VersionNotReady(f"alias {row.name!r} never named another version")


def suspension(session: Session, model_id: UUID, name: str) -> str | None:
    """Why an alias that a forget job took away names nothing; None where it was not, or is there again."""
    newest = session.scalar(
        select(AliasMove)
        .where(AliasMove.model_id == model_id, AliasMove.name == name)
        .order_by(AliasMove.created_at.desc(), AliasMove.id.desc())
        .limit(1)
    )
    if newest is None or newest.version_id is not None or newest.reason == REMOVED:
        return None
    return newest.reason.removesuffix(SUSPENDED)


def count(session: Session, model_id: UUID, name: str) -> int:
    """How often the alias moved, also before it was removed: no tag ever names two states of it."""
    counted = select(func.count()).select_from(AliasMove).filter_by(model_id=model_id, name=name)
    return session.scalar(counted) or 0


def write(
    session: Session, model: Model, name: str, version_id: UUID | None, reason: str, actor: str
) -> None:
    """Add a move to a version, or to none."""
    session.add(
        AliasMove(
            id=ids.new(),
            tenant_id=model.tenant_id,
            model_id=model.id,
            name=name,
            version_id=version_id,
            reason=reason,
            actor=actor,
            created_at=clock(session),
        )
    )
