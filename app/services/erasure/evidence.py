"""What a purge did for each request: counts, written in the transaction that does it, so that a purge that
was killed and repeated counts nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.erasure.parts import parts
from app.tables import ForgetRequest

PURGE = "purge"


def add(session: Session, request_ids: Iterable[UUID], what: str) -> None:
    """Count one thing more for each of the requests, as often as it is named; they are held from here on."""
    more = Counter(request_ids)
    for part in parts(sorted(more)):
        for row in held(session, part):
            told: dict[str, Any] = dict(row.evidence.get(PURGE, {}))
            told[what] = told.get(what, 0) + more[row.id]
            row.evidence = {**row.evidence, PURGE: told}


def held(session: Session, request_ids: Iterable[object]) -> list[ForgetRequest]:
    """Requests as committed now, held until the transaction ends, in one order for everybody."""
    query = select(ForgetRequest).where(ForgetRequest.id.in_(list(request_ids))).order_by(ForgetRequest.id)
    return list(session.scalars(query.with_for_update().execution_options(populate_existing=True)))


def conclude(request: ForgetRequest, datasets: int) -> None:
    """Say what the purge found where it found nothing, too."""
    told = {"rows": 0, "versions": 0, **request.evidence.get(PURGE, {}), "datasets": datasets}
    request.evidence = {**request.evidence, PURGE: told}
