"""What the rows say of a version: which files and keys hold it, and all that is not in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import NotFound, Purged, VersionNotReady
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.grid import Grid
from app.schemas.models import GRID
from app.service import Service
from app.services.models import heads
from app.tables import Centroid, FeatureMap, Model, ModelClass, Upload, Version, VersionClass

NETWORK = "network."  # before the names of a network's tensors in the file of the version that trained it


@dataclass(frozen=True)
class Facts:
    """What the rows say of a version at one moment."""

    version_id: UUID
    state: str
    file: tuple[UUID, UUID]  # file and key
    statistics_file: UUID | None  # under the same key; None where nobody asked for it, or there is none
    network_file: tuple[UUID, UUID] | None  # None for `identity`
    network_prefix: str  # of the network's tensors in that file
    input: InputSpec
    grid: Grid
    network: NetworkSpec
    settings: heads.Settings
    classes: tuple[tuple[str, UUID], ...]  # name and id, by the bytes of the name
    centroids: tuple[tuple[str, Centroid], ...]

    def names(self) -> tuple[Any, ...]:
        """The files and keys that the rows name: where these are the same, reading again helps nothing."""
        rows = tuple((row.id, row.key_id) for _, row in self.centroids)
        return (self.state, self.file, self.statistics_file, self.network_file, self.classes, rows)


def read(service: Service, version_id: UUID, centroids: bool, statistics: bool) -> Facts:
    """The facts of a usable version. Raises `NotFound`, `Purged`, or `VersionNotReady` for a retired one."""
    with service.db.read() as session:
        version = session.get(Version, version_id)
        if version is None:
            raise NotFound("there is no such version")
        if version.state == "purged":
            raise Purged(f"version {version.number} was destroyed")
        if version.state != "ready":
            raise VersionNotReady(f"version {version.number} is {version.state}")
        model = session.get_one(Model, version.model_id)
        classes, rows = _class_map(session, version_id, centroids)
        network_file, prefix = network_source(session, version)
        return Facts(
            version_id=version_id,
            state=version.state,
            file=(version.file_id, version.key_id),
            statistics_file=version.statistics_file_id if statistics else None,
            network_file=network_file,
            network_prefix=prefix,
            input=InputSpec.model_validate(model.input),
            grid=GRID.validate_python(model.grid),
            network=NetworkSpec.model_validate(model.network),
            settings=heads.of_model(model),
            classes=classes,
            centroids=rows,
        )


def _class_map(
    session: Session, version_id: UUID, centroids: bool
) -> tuple[tuple[tuple[str, UUID], ...], tuple[tuple[str, Centroid], ...]]:
    entries = session.execute(
        select(ModelClass.name, ModelClass.id, VersionClass.centroid_id)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .where(VersionClass.version_id == version_id)
    ).all()
    entries = sorted(entries, key=lambda entry: entry[0].encode())
    classes = tuple((name, id) for name, id, _ in entries)
    if not centroids:
        return classes, ()
    rows = session.scalars(
        select(Centroid)
        .join(VersionClass, VersionClass.centroid_id == Centroid.id)
        .where(VersionClass.version_id == version_id)
    )
    by_id = {row.id: row for row in rows}
    return classes, tuple((name, by_id[at]) for name, _, at in entries if at in by_id)


def network_source(session: Session, version: Version) -> tuple[tuple[UUID, UUID] | None, str]:
    """File and key that hold the network of a version's feature map, and the prefix of its tensors there."""
    kind, _, rest = session.get_one(FeatureMap, version.feature_map_id).source.partition(":")
    if kind == "identity":
        return None, ""
    id = UUID(hex=rest.partition(":")[0])
    if kind == "upload":
        upload = session.get_one(Upload, id)
        return (upload.file_id, upload.key_id), ""
    trained = session.get_one(Version, id)
    return (trained.file_id, trained.key_id), NETWORK
