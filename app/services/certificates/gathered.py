"""What the certificates of some requests are made from, read together.

A purge closes many requests at a time, and they share models, versions and recipes: each is read, or made,
once. It holds good within the transaction that it was read in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services.erasure.parts import parts
from app.services.models import coverage
from app.tables import (
    ErasedRow,
    Export,
    FeatureMap,
    ForgetItem,
    ForgetRequest,
    ForgetTarget,
    Model,
    Version,
)

T = TypeVar("T")
R = TypeVar("R", ForgetRequest, Version, Model, FeatureMap)
Gone = Mapping[UUID, set[int]]  # dataset -> positions


@dataclass(frozen=True)
class Facts:
    """What the tables hold of one request."""

    request: ForgetRequest
    joined: ForgetRequest | None  # whose duplicate it is
    gone: Gone  # the rows that its entry of the ledger takes away
    items: Sequence[ForgetItem]  # one per version that it touched
    identifiers: int
    exports: Sequence[Export]  # of these rows' datasets and of these versions


@dataclass(frozen=True)
class Gathered:
    """Facts of some requests, and what they share."""

    service: Service
    session: Session
    now: datetime
    facts: Mapping[UUID, Facts]  # of each request
    versions: Mapping[UUID, Version]
    models: Mapping[UUID, Model]
    sources: Mapping[UUID, str]  # of feature maps
    _made: dict[object, Any] = field(default_factory=dict)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What is the same for all of them, made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def learned_by(self, version_id: UUID) -> Mapping[UUID, frozenset[int]]:
        """Datasets that trained a version, and the positions that were left out."""
        return self.once(("learned", version_id), lambda: coverage.train_edges(self.session, version_id))


def gather(service: Service, session: Session, requests: Sequence[ForgetRequest]) -> Gathered:
    """Read what the certificates of these requests are made from."""
    joined = _rows(session, ForgetRequest, {row.duplicate_of for row in requests if row.duplicate_of})
    gone, identifiers = _erased(session, requests), _identifiers(session, requests)
    items = version_items(session, requests)
    versions = _rows(session, Version, {id for some in items.values() for id in _versions(some)})
    models = _rows(session, Model, {row.model_id for row in versions.values()})
    maps = _rows(session, FeatureMap, {row.feature_map_id for row in versions.values()})
    exports = _Exports(session, items, gone.values())
    facts = {}
    for row in requests:
        rows = gone.get(row.sequence or 0, {})
        facts[row.id] = Facts(
            request=row,
            joined=joined[row.duplicate_of] if row.duplicate_of else None,
            gone=rows,
            items=items[row.id],
            identifiers=identifiers.get(row.id, 0),
            exports=exports.of(items[row.id], rows),
        )
    sources = {id: row.source for id, row in maps.items()}
    return Gathered(service, session, clock(session), facts, versions, models, sources)


def version_items(session: Session, requests: Iterable[ForgetRequest]) -> dict[UUID, list[ForgetItem]]:
    """For each request one per version that it touched, by id of the version; those of a duplicate stand
    under the one that it joined."""
    stand_under = {row.id: row.duplicate_of or row.id for row in requests}
    found: dict[UUID, list[ForgetItem]] = defaultdict(list)
    for part in parts(sorted(set(stand_under.values()))):
        query = select(ForgetItem).where(ForgetItem.request_id.in_(part), ForgetItem.kind == "version")
        for item in session.scalars(query.order_by(ForgetItem.resource_id)):
            found[item.request_id].append(item)
    return {id: found.get(other, []) for id, other in stand_under.items()}


def replacement(item: ForgetItem) -> UUID | None:
    """The version that stands in the place of an item's; none where nothing usable was left."""
    id = item.detail.get("replacement_id")
    return UUID(hex=id) if id else None


def _versions(items: Iterable[ForgetItem]) -> set[UUID]:
    """The versions of items, and those in their places."""
    return {id for item in items for id in (item.resource_id, replacement(item)) if id is not None}


def _rows(session: Session, table: type[R], ids: Iterable[UUID]) -> dict[UUID, R]:
    """Rows by id; all of them have to be there."""
    wanted = set(ids)
    rows = [row for part in parts(wanted) for row in session.scalars(select(table).where(table.id.in_(part)))]
    found = {row.id: row for row in rows}
    assert found.keys() == wanted, table.__name__
    return found


def _erased(session: Session, requests: Iterable[ForgetRequest]) -> dict[int, dict[UUID, set[int]]]:
    """The rows that each entry of the ledger takes away."""
    found: dict[int, dict[UUID, set[int]]] = {}
    for part in parts({row.sequence for row in requests if row.sequence is not None}):
        query = select(ErasedRow.sequence, ErasedRow.dataset_id, ErasedRow.position)
        for sequence, dataset_id, position in session.execute(query.where(ErasedRow.sequence.in_(part))):
            found.setdefault(sequence, {}).setdefault(dataset_id, set()).add(position)
    return found


def _identifiers(session: Session, requests: Iterable[ForgetRequest]) -> dict[UUID, int]:
    """How many identifiers each request named."""
    found: dict[UUID, int] = {}
    for part in parts([row.id for row in requests]):
        query = select(ForgetTarget.request_id, func.count()).where(ForgetTarget.request_id.in_(part))
        found |= {id: count for id, count in session.execute(query.group_by(ForgetTarget.request_id))}
    return found


class _Exports:
    """What left, by what it was of."""

    def __init__(
        self, session: Session, items: Mapping[UUID, Sequence[ForgetItem]], gone: Iterable[Gone]
    ) -> None:
        self._of: dict[UUID, dict[UUID, Export]] = defaultdict(dict)
        wanted = {
            Export.version_id: {item.resource_id for some in items.values() for item in some},
            Export.dataset_id: {id for rows in gone for id in rows},
        }
        for column, ids in wanted.items():
            for part in parts(ids):
                for row in session.scalars(select(Export).where(column.in_(part))):
                    for id in (row.version_id, row.dataset_id):
                        if id is not None:
                            self._of[id][row.id] = row

    def of(self, items: Iterable[ForgetItem], gone: Gone) -> list[Export]:
        """Those of the items' versions and of the rows' datasets, each once, by id."""
        found: dict[UUID, Export] = {}
        for id in (*(item.resource_id for item in items), *gone):
            found |= self._of.get(id, {})
        return sorted(found.values(), key=lambda row: row.id)
