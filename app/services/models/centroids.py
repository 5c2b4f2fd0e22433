"""Centroids of a version: personal data, so small classes are shown to an administrator only."""

from __future__ import annotations

import io
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.methods.parts.grid import unit
from app.schemas.models import GRID
from app.schemas.versions import CentroidList, CentroidRead
from app.service import Service
from app.services.models import models, versions
from app.tables import Centroid, FeatureMap, Model, ModelClass, Version, VersionClass
from app.vault import KeyObject

FEW_ROWS = "fewer rows than the model's min_centroid_rows: shown to scope admin only"
NO_ROWS = "this version came without centroids"


def of_version(
    service: Service, tenant_id: UUID, model_id: UUID, number: int, *, show_all: bool
) -> CentroidList:
    """The centroids of a version as float32 means, in the order of its classes."""
    with service.db.read() as session:
        model = models.get(session, tenant_id, model_id)
        return _read(service, session, model, versions.usable(session, model, number), show_all)


def _read(service: Service, session: Session, model: Model, version: Version, show_all: bool) -> CentroidList:
    step = unit(GRID.validate_python(model.grid))
    keys: dict[UUID, KeyObject] = {}
    items = []
    for class_, centroid in _rows(session, version.id):
        reason = _reason(centroid, model.min_centroid_rows, show_all)
        vector = None
        if centroid is not None and reason is None:
            if centroid.key_id not in keys:
                keys[centroid.key_id] = service.vault.key(centroid.key_id)
            vector = _mean(service, centroid, keys[centroid.key_id], step).tolist()
        count = centroid.count if centroid is not None else None
        items.append(
            CentroidRead(class_id=class_.id, name=class_.name, count=count, vector=vector, reason=reason)
        )
    width = session.get_one(FeatureMap, version.feature_map_id).width
    return CentroidList(version=version.number, width=width, items=items)


def as_npz(found: CentroidList) -> bytes:
    """The same as arrays: `class_id`, `name`, `count` (-1: none), `vector` (NaN: not shown) and `reason`."""
    vectors = np.full((len(found.items), found.width), np.nan, np.float32)
    for row, item in enumerate(found.items):
        if item.vector is not None:
            vectors[row] = item.vector
    shown = [item.model_dump(mode="json") for item in found.items]
    file = io.BytesIO()
    arrays: dict[str, NDArray[np.generic]] = {
        "class_id": np.array([item["class_id"] for item in shown], dtype=np.str_),
        "name": np.array([item["name"] for item in shown], dtype=np.str_),
        "count": np.array([-1 if item.count is None else item.count for item in found.items], np.int64),
        "vector": vectors,
        "reason": np.array([item.reason or "" for item in found.items], dtype=np.str_),
    }
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _rows(session: Session, version_id: UUID) -> list[tuple[ModelClass, Centroid | None]]:
    rows = session.execute(
        select(ModelClass, Centroid)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .outerjoin(Centroid, Centroid.id == VersionClass.centroid_id)
        .where(VersionClass.version_id == version_id)
    )
    return sorted(((c, z) for c, z in rows), key=lambda pair: pair[0].name.encode())


def _reason(centroid: Centroid | None, least: int, show_all: bool) -> str | None:
    if centroid is None:
        return NO_ROWS
    return FEW_ROWS if centroid.count < least and not show_all else None


def _mean(service: Service, row: Centroid, key: KeyObject, step: float) -> NDArray[np.float32]:
    sums = np.frombuffer(service.vault.open_value(row.ciphertext, key, row.id), "<i8")
    mean: NDArray[np.float32] = (sums / row.count * step).astype(np.float32)
    return mean
