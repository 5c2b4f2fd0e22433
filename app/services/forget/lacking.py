"""Requests that cannot have what they ask for: a version could be cleaned only with rows that nobody stores
any more, or only by training a network where the request insists on `exact`.

One that lacks rows is `failed`, with an exception that counts what is missing, until a `retry` brings the
rows, or accepts that versions go (`withdraw`). So nobody loses a version that serves for a dataset deleted
long ago. After a restore nothing waits: what cannot be cleaned goes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.services.forget import states
from app.tables import ForgetItem, ForgetRequest, Restore

CODE = "rows-not-retained"
UNKNOWN = "rows-not-matched"
NEEDS_RETRAIN = "needs-retrain"


@dataclass(frozen=True)
class Lack:
    """What a request lacks for the versions of one model. Counts: never which rows."""

    rows: int  # that would have to be taken away and are not stored
    versions: int  # that could be cleaned with them alone
    can_be_sent: bool  # whether sending them again would do; otherwise rows that stay are missing too
    sent: int = 0  # rows that were sent again for the request
    unmatched: int = 0  # those that are none of the rows that it erases

    def said(self, model_id: UUID) -> dict[str, Any]:
        """The exception of a request."""
        found = {
            "code": CODE,
            "model": ids.encode("mdl", model_id),
            "rows": self.rows,
            "versions": self.versions,
            "can_be_sent": self.can_be_sent,
        }
        return found | ({"sent": self.sent, "unmatched": self.unmatched} if self.sent else {})


@dataclass(frozen=True)
class Refusal:
    """What a request that insists on `exact` does not get of one model."""

    versions: int  # that only `retrain` makes clean

    def said(self, model_id: UUID) -> dict[str, Any]:
        """The exception of a request."""
        return {"code": NEEDS_RETRAIN, "model": ids.encode("mdl", model_id), "versions": self.versions}


def may_wait(session: Session, request_ids: Collection[UUID]) -> set[UUID]:
    """Those of the requests that wait for rows rather than lose versions."""
    if session.scalar(select(Restore.id).where(Restore.finished_at.is_(None)).limit(1)) is not None:
        return set()
    query = select(ForgetRequest.id).where(
        ForgetRequest.id.in_(list(request_ids)),
        ForgetRequest.state.not_in(states.ENDED),
        ~ForgetRequest.withdraw,
    )
    return set(session.scalars(query))


def wait(session: Session, model_id: UUID, lacks: Mapping[UUID, Lack | Refusal]) -> None:
    """Say that the job of a model leaves these requests aside: they are `failed` until `retry`."""
    waiting = [row for row in states.lock(session, lacks) if row.state not in states.ENDED]
    news = []
    for request in waiting:
        key = {"request_id": request.id, "kind": "model", "resource_id": model_id}
        item = session.get_one(ForgetItem, key)
        lack = lacks[request.id].said(model_id)
        item.detail = {**item.detail, "failed_at": "unlearning", "cause": lack["code"]}
        item.state = "failed"
        if lack not in request.exceptions:
            news.append(request)
        same = (lack["code"], lack["model"])
        others = [one for one in request.exceptions if (one["code"], one.get("model")) != same]
        request.exceptions = [*others, lack]
    states.recompute_all(session, waiting)
    for request in news:
        states.tell(session, request, "forget.failed", states.SYSTEM)


def note_sent(session: Session, counts: Mapping[UUID, tuple[int, int]]) -> None:
    """Keep how many rows were sent again for requests, and how many of them no model knew."""
    for request in states.lock(session, counts):
        sent, unmatched = counts[request.id]
        before = request.evidence.get("sent_again", {})
        told = {"rows": sent, "unmatched": min(unmatched, before.get("unmatched", unmatched))}
        request.evidence = {**request.evidence, "sent_again": told}


def unmatched(request: ForgetRequest) -> list[dict[str, Any]]:
    """The exception of a request for which rows were sent that are none of those it erases."""
    count = request.evidence.get("sent_again", {}).get("unmatched", 0)
    return [{"code": UNKNOWN, "rows": count}] if count else []


def without(exceptions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Exceptions without those that a retry looks at anew."""
    return [dict(one) for one in exceptions if one["code"] not in (CODE, NEEDS_RETRAIN)]
