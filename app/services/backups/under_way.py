"""Whether a restored database still holds what was erased after its backup."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.tables import Restore


def is_open(session: Session) -> bool:
    """Whether a restore of this database is not finished."""
    return session.scalar(select(Restore.id).where(Restore.finished_at.is_(None)).limit(1)) is not None
