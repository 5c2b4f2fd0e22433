"""Messages that are due, by receiver: a share for each tenant, so that none waits for another's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import case, func, select

from app.db import clock
from app.errors import ArtifactCorrupt
from app.service import Service
from app.services.callbacks import signing
from app.services.callbacks.messages import EVENTS
from app.tables import Delivery, ForgetRequest

IN_A_ROW = 25  # messages of one receiver at a time
SHARE = 4  # receivers of one tenant at a time


@dataclass(frozen=True)
class Receiver:
    """Who is told: a tenant's server, whatever the paths."""

    tenant_id: UUID
    origin: str


@dataclass(frozen=True)
class Letter:
    """A message that is due."""

    id: UUID
    url: str
    key: bytes
    body: bytes


def due(service: Service, busy: Collection[Receiver]) -> dict[Receiver, list[Letter]]:
    """What to tell to whom, in the order of what it tells; to nobody who is `busy` with what came before."""
    chosen = _shares(_waiting(service), busy)
    found = _read(service, [id for row_ids in chosen.values() for id in row_ids])
    letters = {who: [found[id] for id in row_ids if id in found] for who, row_ids in chosen.items()}
    return {who: some for who, some in letters.items() if some}


def close(service: Service, delivery_id: UUID, why: str) -> None:
    """Give a message up."""
    with service.db.begin() as session:
        row = session.get_one(Delivery, delivery_id)
        row.state, row.next_at, row.last_error = "failed", None, why


def _waiting(service: Service) -> Sequence[Any]:
    """The first of the messages that are due to each address, the oldest first."""
    order = Delivery.next_at, case({event: at for at, event in enumerate(EVENTS)}, value=Delivery.event)
    place = func.row_number().over(
        partition_by=(Delivery.tenant_id, ForgetRequest.callback_url), order_by=order
    )
    with service.db.read() as session:
        ranked = (
            select(
                Delivery.id,
                Delivery.tenant_id,
                ForgetRequest.callback_url.label("url"),
                Delivery.next_at,
                order[1].label("step"),
                place.label("place"),
            )
            .join(ForgetRequest, ForgetRequest.id == Delivery.request_id)
            .where(Delivery.state == "pending", Delivery.next_at <= clock(session))
            .subquery()
        )
        first = select(ranked.c.id, ranked.c.tenant_id, ranked.c.url).where(ranked.c.place <= IN_A_ROW)
        return session.execute(first.order_by(ranked.c.next_at, ranked.c.step)).all()


def _shares(waiting: Sequence[Any], busy: Collection[Receiver]) -> dict[Receiver, list[UUID]]:
    shares: dict[UUID, int] = {}
    for receiver in busy:
        shares[receiver.tenant_id] = shares.get(receiver.tenant_id, 0) + 1
    chosen: dict[Receiver, list[UUID]] = {}
    for row in waiting:
        who = Receiver(row.tenant_id, _origin(row.url))
        if who not in chosen:
            if who in busy or shares.get(who.tenant_id, 0) >= SHARE:
                continue
            shares[who.tenant_id] = shares.get(who.tenant_id, 0) + 1
        if len(chosen.setdefault(who, [])) < IN_A_ROW:
            chosen[who].append(row.id)
    return chosen


def _read(service: Service, row_ids: Sequence[UUID]) -> dict[UUID, Letter]:
    with service.db.read() as session:
        rows = session.execute(
            select(Delivery, ForgetRequest.callback_url, ForgetRequest.callback_key_id)
            .join(ForgetRequest, ForgetRequest.id == Delivery.request_id)
            .where(Delivery.id.in_(row_ids))
        ).all()
    letters = {}
    for row, url, key_id in rows:
        assert url is not None
        assert key_id is not None
        try:
            key = service.vault.key(key_id).key or b""
        except ArtifactCorrupt:
            close(service, row.id, "the secret is gone")
            continue
        letters[row.id] = Letter(row.id, url, key, signing.body_of(row.payload))
    return letters


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"
