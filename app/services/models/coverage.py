"""Which learned rows the stored statistics of an ancestry cover, and which of a version's they lack.

A version's statistics cover, once each, all rows that its ancestry used with role `train`, whatever the
methods. A version made by a method that keeps none takes them from the nearest ancestor that has some, and
from the stored features of what was learned since.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.errors import MissingData
from app.services.models import versions
from app.tables import Dataset, Version, VersionClass, VersionDataset


@dataclass(frozen=True)
class Missing:
    """Rows of a dataset that a version learned and the statistics lack."""

    dataset_id: UUID
    left_out: frozenset[int]  # positions that the version did not use
    only: frozenset[int] | None = None  # where set, none but these


@dataclass(frozen=True)
class Coverage:
    """The nearest version with statistics, and what they lack."""

    stored: Version | None
    missing: tuple[Missing, ...]


def of(session: Session, base: Version) -> Coverage:
    """How the statistics of everything that `base` and its ancestors learned come together."""
    stored = nearest(session, base)
    known = train_edges(session, stored.id) if stored else {}
    missing = []
    for dataset_id, left_out in sorted(train_edges(session, base.id).items()):
        if dataset_id not in known:
            missing.append(Missing(dataset_id, left_out))
        elif more := known[dataset_id] - left_out:
            missing.append(Missing(dataset_id, left_out, more))
    return Coverage(stored, tuple(missing))


def nearest(session: Session, base: Version) -> Version | None:
    """The nearest of `base` and its ancestors whose statistics are stored: of a retired one they stay while a
    version that is ready builds on them.

    An ancestor that was replaced, since it knew rows that are erased, counts no more: its replacement does.
    Statistics are of the base's feature map, or of no use.
    """
    found: Version | None = base
    while found is not None and (
        found.state == "purged"
        or found.statistics_file_id is None
        or found.feature_map_id != base.feature_map_id
    ):
        parent = session.get(Version, found.parent_id) if found.parent_id else None
        found = parent and (versions.replacement(session, parent) or parent)
    return found


def check(session: Session, base: Version) -> None:
    """Raise `MissingData` where the statistics of a version can no longer be made."""
    check_rows_known(session, base)
    needed = [rows.dataset_id for rows in of(session, base).missing]
    gone = session.scalars(
        select(Dataset.id).where(Dataset.id.in_(needed), Dataset.deleted_at.is_not(None)).order_by(Dataset.id)
    ).all()
    if gone:
        names = ", ".join(ids.encode("dst", id) for id in gone)
        raise MissingData(
            f"version {base.number} has no statistics, and the rows to make them from are gone: {names}",
            pointer="/base",
        )


def check_rows_known(session: Session, base: Version) -> None:
    """Raise `MissingData` where a version has classes without centroids: every method builds on them."""
    if session.scalar(select(VersionClass.class_id).filter_by(version_id=base.id, centroid_id=None).limit(1)):
        raise MissingData(
            f"version {base.number} knows classes without rows: it was imported", pointer="/base"
        )


def train_edges(session: Session, version_id: UUID) -> dict[UUID, frozenset[int]]:
    """Datasets that a version or its ancestors learned from, and the positions they left out."""
    rows = session.execute(
        select(VersionDataset.dataset_id, VersionDataset.left_out).where(
            VersionDataset.version_id == version_id, VersionDataset.role == "train"
        )
    )
    return {id: frozenset(left_out) for id, left_out in rows}
