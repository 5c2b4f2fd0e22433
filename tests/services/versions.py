"""Published versions for tests, written straight into tables and vault."""

from __future__ import annotations

import json
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.methods.base import Snapshot
from app.methods.networks import width
from app.service import Service
from app.services.models import snapshots
from app.tables import (
    Centroid,
    FeatureMap,
    Model,
    ModelClass,
    Tenant,
    Version,
    VersionClass,
)
from app.vault import new_key


def add_tenant(session: Session) -> UUID:
    """The first tenant, made where there is none."""
    tenant = session.scalar(select(Tenant).order_by(Tenant.id).limit(1))
    if tenant is None:
        tenant = Tenant(name="default", created_at=clock(session))
        session.add(tenant)
        session.flush()
    return tenant.id


def add_model(session: Session, snapshot: Snapshot, tenant_id: UUID | None = None, **changes) -> Model:
    grid = snapshot.grid if isinstance(snapshot.grid, str) else snapshot.grid.model_dump()
    id = ids.new()
    values = {
        "id": id,
        "tenant_id": tenant_id or add_tenant(session),
        "created_at": clock(session),
        "name": f"model-{id.hex}",
        "task": "classification",
        "input": snapshot.input.model_dump(mode="json"),
        "grid": grid,
        "network": snapshot.network.model_dump(mode="json"),
        "gates": {},
        "min_centroid_rows": 5,
    }
    model = Model(**{**values, **changes})
    session.add(model)
    session.flush()
    return model


def add_version(
    service: Service,
    model: Model,
    snapshot: Snapshot,
    *,
    trained_network: bool = False,
    feature_map_id: UUID | None = None,
    centroids_of: UUID | None = None,
    ledger_sequence: int = 0,
) -> Version:
    """Bytes first, then the rows: a version as a publication leaves it, with the number that comes next."""
    version_id, key_id = ids.new(), ids.new()
    saved = snapshots.save(service, snapshot, trained_network=trained_network, key=new_key())
    service.vault.write_key(key_id, saved.key)
    with service.db.begin() as session:
        version = Version(
            id=version_id,
            tenant_id=model.tenant_id,
            created_at=clock(session),
            model_id=model.id,
            number=1 + (session.scalar(select(func.max(Version.number)).filter_by(model_id=model.id)) or 0),
            feature_map_id=feature_map_id or _feature_map(session, model, snapshot, version_id),
            method="import",
            params={},
            seed=0,
            state="ready",
            ledger_sequence=ledger_sequence,
            file_id=saved.file_id,
            key_id=key_id,
            metrics={},
            report={},
            seconds=0.0,
        )
        session.add(version)
        session.flush()
        shared = dict(
            session.execute(
                select(VersionClass.class_id, VersionClass.centroid_id).filter_by(version_id=centroids_of)
            ).all()
        )
        for name in snapshot.classes:
            class_id = _class(session, model, name)
            centroid_id = shared.get(class_id)
            if centroid_id is None and name in snapshot.centroids:
                centroid_id = _centroid(service, session, version, class_id, snapshot.centroids[name])
            session.add(VersionClass(version_id=version_id, class_id=class_id, centroid_id=centroid_id))
        touch(session)
    return version


def _feature_map(session: Session, model: Model, snapshot: Snapshot, version_id: UUID) -> UUID:
    if snapshot.network.name == "identity":
        grid = json.dumps(model.grid, sort_keys=True)
        source = f"identity:{grid}:{'x'.join(map(str, snapshot.input.shape))}"
    else:
        source = f"version:{version_id.hex}"
    found = session.scalar(select(FeatureMap.id).filter_by(tenant_id=model.tenant_id, source=source))
    if found is not None:
        return found
    row = FeatureMap(
        tenant_id=model.tenant_id,
        created_at=clock(session),
        source=source,
        width=width(snapshot.network, snapshot.input),
    )
    session.add(row)
    session.flush()
    return row.id


def _class(session: Session, model: Model, name: str) -> UUID:
    found = session.scalar(select(ModelClass.id).filter_by(model_id=model.id, name=name))
    if found is not None:
        return found
    row = ModelClass(
        tenant_id=model.tenant_id,
        created_at=clock(session),
        model_id=model.id,
        name=name,
        name_key=name.casefold(),
    )
    session.add(row)
    session.flush()
    return row.id


def _centroid(service, session, version: Version, class_id: UUID, centroid) -> UUID:
    id = ids.new()
    key = service.vault.key(version.key_id)
    row = Centroid(
        id=id,
        tenant_id=version.tenant_id,
        created_at=version.created_at,
        class_id=class_id,
        feature_map_id=version.feature_map_id,
        count=centroid.count,
        ciphertext=service.vault.seal_value(centroid.sum.astype("<i8").tobytes(), key, id),
        key_id=version.key_id,
    )
    session.add(row)
    session.flush()
    return row.id
