"""Lineage: versions up and down, and the datasets that each one used."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.schemas.versions import DatasetUse, LineageNode, LineageRead
from app.services.erasure import ledger
from app.tables import Version, VersionDataset


def datasets(session: Session, version_id: UUID) -> list[DatasetUse]:
    """The edges of a version, its ancestors' included."""
    rows = session.scalars(
        select(VersionDataset)
        .where(VersionDataset.version_id == version_id)
        .order_by(VersionDataset.dataset_id, VersionDataset.role)
    )
    return [
        DatasetUse(
            dataset=row.dataset_id,
            role=row.role,
            inherited=row.inherited,
            rows=row.rows,
            left_out=len(row.left_out),
        )
        for row in rows
    ]


def read(session: Session, version: Version) -> LineageRead:
    """The ancestors and descendants of a version, and its datasets."""
    rows = session.scalars(
        select(Version).where(Version.model_id == version.model_id).order_by(Version.number)
    ).all()
    by_id = {row.id: row for row in rows}
    tainted = ledger.tainted(session, by_id)

    def node(row: Version) -> LineageNode:
        parent = by_id.get(row.parent_id) if row.parent_id else None
        return LineageNode(
            number=row.number,
            id=row.id,
            parent=parent.number if parent else None,
            state=row.state,
            tainted=row.id in tainted,
            method=row.method,
        )

    up, at = [], version
    while at.parent_id is not None:
        at = by_id[at.parent_id]
        up.append(node(at))
    below = {version.id}
    down = []
    for row in rows:  # a parent has a smaller number than its children
        if row.parent_id in below:
            below.add(row.id)
            down.append(node(row))
    return LineageRead(
        version=version.number, ancestors=up, descendants=down, datasets=datasets(session, version.id)
    )
