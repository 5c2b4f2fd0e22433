"""How far an erasure reaches within a model: the versions that know a row or a class that goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.models import coverage
from app.tables import Model, Version, VersionClass, VersionDataset
from workers.forget_entries import Gone

Edges = tuple[VersionDataset, ...]


def affected(
    session: Session, model: Model, gone: Gone, lost: Mapping[UUID, str], shut: frozenset[UUID]
) -> list[tuple[Version, Edges]]:
    """Usable versions that know a row or class that goes, or do not open, oldest first, and before each the
    retired one whose statistics it builds on."""
    ready = select(Version).where(Version.model_id == model.id, Version.state == "ready")
    found: dict[UUID, tuple[Version, Edges]] = {}
    for version in session.scalars(ready.order_by(Version.number)).all():
        edges = edges_of(session, version.id)
        if version.id in shut:
            found[version.id] = (version, edges)
            continue
        if not _knows(session, version, edges, gone, lost):
            continue
        stored = coverage.nearest(session, version)
        if stored is not None and stored.state != "ready" and stored.id not in found:
            below = edges_of(session, stored.id)
            if used(below, gone, "train"):
                found[stored.id] = (stored, below)
        found[version.id] = (version, edges)
    return sorted(found.values(), key=lambda one: one[0].number)


def _knows(session: Session, version: Version, edges: Edges, gone: Gone, lost: Mapping[UUID, str]) -> bool:
    if any(used((edge,), gone, edge.role) for edge in edges):
        return True
    return not classes_of(session, version.id).isdisjoint(lost)


def used(edges: Iterable[VersionDataset], gone: Gone, role: str) -> dict[UUID, frozenset[int]]:
    """The rows among `gone` that edges of a role do not leave out."""
    return {
        edge.dataset_id: rows
        for edge in edges
        if edge.role == role and (rows := gone.get(edge.dataset_id, frozenset()) - frozenset(edge.left_out))
    }


def edges_of(session: Session, version_id: UUID) -> Edges:
    """What a version used, by dataset and role."""
    return tuple(session.scalars(select(VersionDataset).where(VersionDataset.version_id == version_id)))


def classes_of(session: Session, version_id: UUID) -> set[UUID]:
    """The ids of the classes that a version knows."""
    return set(session.scalars(select(VersionClass.class_id).where(VersionClass.version_id == version_id)))
