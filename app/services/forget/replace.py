"""Publication of a forget job: every version that knew the rows is replaced, or dropped, in one transaction.

It moves aliases too. What was replaced can be read no more from then on; a purge destroys it. The publication
is guarded by the fencing number alone: what came into the ledger since the claim taints the replacements, and
the next forget job, first in the lane, replaces them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.methods.base import Centroid
from app.service import Service
from app.services.callers import audit
from app.services.models import aliases, publish, versions
from app.services.models.publish import Draft, Shared
from app.tables import Alias, ForgetItem, ForgetRequest, Model, ModelClass, Version


@dataclass(frozen=True)
class Replacement:
    """What becomes of one version."""

    old_id: UUID
    requests: frozenset[UUID]  # whose rows or classes it knew
    detail: Mapping[str, Any]  # of its item: way, guarantee, checks, seconds
    draft: Draft | None  # None: nothing usable is left of it
    new_map: UUID | None = None  # the version whose network was trained anew for it


def publish_all(
    service: Service,
    session: Session,
    model: Model,
    replacements: Sequence[Replacement],
    *,
    classes: Collection[UUID],
    taken: Collection[UUID],
    actor: str,
) -> list[dict[str, Any]]:
    """Insert the replacements, the oldest first, retire what they replace, move aliases, retire `classes`;
    gives a line for each version. The caller holds the lock of the model's row."""
    found: dict[UUID, Version | None] = {}
    maps: dict[UUID, UUID] = {}
    centroids: dict[UUID, Mapping[str, Centroid]] = {}
    lines = []
    for one in replacements:
        old = session.get_one(Version, one.old_id)
        new = None
        if one.draft is not None:
            draft = _placed(session, one, old, maps, centroids)
            new = publish.insert(service, session, model, draft, actor)
            centroids[new.id] = draft.snapshot.centroids
            if one.new_map is not None:
                maps.setdefault(one.new_map, new.feature_map_id)
        found[old.id] = new
        old.state = "retired" if old.state == "ready" else old.state
        lines.append(_line(session, one, old, new))
        _record(session, model, old, new, actor)
    _move_aliases(session, model, found, _named(taken), actor)
    _retire_classes(session, model, classes)
    touch(session)
    return lines


def _placed(
    session: Session,
    one: Replacement,
    old: Version,
    maps: Mapping[UUID, UUID],
    centroids: Mapping[UUID, Mapping[str, Centroid]],
) -> Draft:
    """The draft with its parent, its map, and the centroids that it shares with its parent."""
    assert one.draft is not None
    parent = session.get(Version, old.parent_id) if old.parent_id else None
    if parent is not None:
        parent = versions.replacement(session, parent) or parent
    draft = replace(one.draft, base_id=parent.id if parent else None)
    if one.new_map is not None:
        draft = replace(draft, feature_map_id=maps.get(one.new_map), base_centroids={})
    if parent is not None and parent.id in centroids and parent.feature_map_id == draft.feature_map_id:
        known: dict[str, Shared] = publish.shared(session, parent.id, centroids[parent.id])
        draft = replace(draft, base_centroids=known)
    return draft


def _line(session: Session, one: Replacement, old: Version, new: Version | None) -> dict[str, Any]:
    """What is said of a version: the detail of its item in each request that is about it."""
    line = {
        "model": ids.encode("mdl", old.model_id),
        "number": old.number,
        "replacement": new.number if new else None,
        "replacement_id": new.id.hex if new else None,
        **one.detail,
    }
    requests = session.scalars(select(ForgetRequest.id).where(ForgetRequest.id.in_(one.requests))).all()
    there = session.scalars(
        select(ForgetItem).where(ForgetItem.kind == "version", ForgetItem.resource_id == old.id)
    )
    items = {item.request_id: item for item in there}
    for request_id in requests:
        item = items.get(request_id)
        if item is None:
            item = ForgetItem(
                request_id=request_id, kind="version", resource_id=old.id, tenant_id=old.tenant_id, detail={}
            )
            session.add(item)
        item.state, item.detail = "done", {**item.detail, **line}
    session.flush()
    return line


def _move_aliases(
    session: Session, model: Model, found: Mapping[UUID, Version | None], why: str, actor: str
) -> None:
    held = select(Alias).where(Alias.model_id == model.id, Alias.version_id.in_(found)).order_by(Alias.name)
    for alias in session.scalars(held).all():
        old = session.get_one(Version, alias.version_id)
        new = found[old.id]
        if new is not None:
            reason = f"{why}: version {old.number} was replaced by {new.number}"
        elif model.on_taint == "fall-back" and (new := _older(session, model, old)):
            reason = f"{why}: nothing usable is left of version {old.number}; fell back to {new.number}"
        if new is not None:
            aliases.move(session, model, alias.name, new, reason=reason, actor=actor)
        else:
            reason = f"{why}: nothing usable is left of version {old.number}"
            aliases.suspend(session, model, alias, reason=reason, actor=actor)


def _older(session: Session, model: Model, old: Version) -> Version | None:
    """The newest usable version that stands for one older than this."""
    usable = versions.untainted(session, model.id)
    return next((row for row, stands_for in usable if stands_for < old.number), None)


def _retire_classes(session: Session, model: Model, classes: Collection[UUID]) -> None:
    rows = select(ModelClass).where(
        ModelClass.model_id == model.id, ModelClass.id.in_(classes), ModelClass.retired_at.is_(None)
    )
    for row in session.scalars(rows).all():
        row.retired_at = clock(session)


def _record(session: Session, model: Model, old: Version, new: Version | None, actor: str) -> None:
    resources: dict[str, UUID | str] = {"model": model.id, "version": old.id}
    if new is not None:
        resources["replacement"] = new.id
    action = "version.replaced" if new is not None else "version.retired"
    audit.record(session, tenant_id=model.tenant_id, actor=actor, action=action, resources=resources)


def _named(requests: Collection[UUID]) -> str:
    names = ", ".join(ids.encode("fgt", id) for id in sorted(requests)[:3])
    more = f" and {len(requests) - 3} more" if len(requests) > 3 else ""
    return f"forget {names}{more}" if names else "forget"
