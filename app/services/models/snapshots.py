"""A version between memory and its file: `save` seals it, `load` opens it and checks every digest.

The file is safetensors: `head.weight` (classes, width), `head.bias` (classes,), `head.normalise` (1,) uint8,
`head.expanded` (1,) uint8 where the head reads the model's expansion, and `network.*` where this version
trained its network. Later versions take the network from the source of their feature map. The label keys of
the head's rows are the names in the class map, in byte order; the one row of a regression has none.

Statistics are a file of their own under the same key, safetensors of `Statistics.arrays`: few need them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as dump_arrays
from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.errors import ArtifactCorrupt, NotFound, Purged, VersionNotReady
from app.methods.base import Centroid, Head, Snapshot
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.digest import class_map_digest
from app.methods.parts.grid import Grid
from app.methods.parts.statistics import Statistics, from_arrays
from app.service import Service
from app.services.models import heads
from app.tables import Centroid as CentroidRow
from app.tables import FeatureMap, Model, ModelClass, Upload, Version, VersionClass
from app.vault import KeyObject

NETWORK = "network."
GRID: TypeAdapter[Grid] = TypeAdapter(Grid)


@dataclass(frozen=True)
class Saved:
    """The sealed files of a version and their key object, which the caller still has to store under an id."""

    file_id: UUID
    key: KeyObject
    statistics_file_id: UUID | None = None

    @property
    def files(self) -> tuple[UUID, ...]:
        """Every file that the key opens."""
        return (self.file_id, *([self.statistics_file_id] if self.statistics_file_id else []))


@dataclass(frozen=True)
class Loaded:
    """A version in memory, with what only the database knows of it."""

    snapshot: Snapshot
    class_ids: tuple[UUID, ...]  # in the order of `snapshot.classes`
    class_map_digest: str
    key: KeyObject  # of the version


@dataclass(frozen=True)
class _Facts:
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
    centroids: tuple[tuple[str, CentroidRow], ...]


def save(service: Service, snapshot: Snapshot, *, trained_network: bool, key: KeyObject) -> Saved:
    """Seal a version's files under `key`; gives the key object its digests and a nonce, and stores no key.

    The digests are those of the files, under the hex of their ids, `weights`, and `statistics` where the
    version has some (`docs/digests.md`). On any failure nothing stays.
    """
    head = snapshot.head
    assert head is not None
    rows = len(snapshot.classes) if snapshot.target is None else 1
    assert rows == len(head.weight) == len(head.bias)
    tensors = {
        "head.weight": head.weight,
        "head.bias": head.bias,
        "head.normalise": torch.tensor([head.normalise], dtype=torch.uint8),
    }
    if head.expanded:
        tensors["head.expanded"] = torch.tensor([True], dtype=torch.uint8)
    if trained_network:
        tensors |= {NETWORK + name: tensor for name, tensor in snapshot.weights.items()}
    file_id = ids.new()
    raw = dump({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    key = service.vault.seal(file_id, [raw], key)
    key = replace(key, nonce=key.nonce or os.urandom(32))
    key = _with_digest(key, "weights", head.digest(snapshot.classes))
    if snapshot.statistics is None:
        return Saved(file_id, key)
    statistics_id = ids.new()
    try:
        key = service.vault.seal(statistics_id, [dump_arrays(snapshot.statistics.arrays())], key)
    except BaseException:
        service.vault.files.delete(file_id)
        raise
    return Saved(file_id, _with_digest(key, "statistics", snapshot.statistics.digest()), statistics_id)


def save_statistics(service: Service, statistics: Statistics, key: KeyObject) -> Saved:
    """Seal statistics alone, for a version of which nothing else is kept; nothing lies under its file."""
    statistics_id = ids.new()
    key = service.vault.seal(statistics_id, [dump_arrays(statistics.arrays())], key)
    return Saved(ids.new(), _with_digest(key, "statistics", statistics.digest()), statistics_id)


def _with_digest(key: KeyObject, name: str, digest: str) -> KeyObject:
    return replace(key, digests={**key.digests, name: digest})


def load(service: Service, version_id: UUID, *, centroids: bool = True, statistics: bool = False) -> Loaded:
    """Open a version. Raises `NotFound`, `Purged`, `VersionNotReady` for a retired one, or `ArtifactCorrupt`
    where a byte is not as written.

    An erasure running beside may take a file away after its row was read: the row is then read again, and
    only what it names now decides. Owns its (read) transactions.
    """
    facts = _read(service, version_id, centroids, statistics)
    while True:
        try:
            return _open(service, facts)
        except ArtifactCorrupt:
            now = _read(service, version_id, centroids, statistics)
            if _names(now) == _names(facts):
                raise
            facts = now


def _open(service: Service, facts: _Facts) -> Loaded:
    keys: dict[UUID, KeyObject] = {}

    def key(id: UUID) -> KeyObject:
        if id not in keys:
            keys[id] = service.vault.key(id)
        return keys[id]

    file_id, key_id = facts.file
    tensors = _tensors(service.vault.open(file_id, key(key_id)))
    classes = tuple(name for name, _ in facts.classes)
    class_ids = tuple(id for _, id in facts.classes)
    head = _head(tensors)
    if head.digest(classes) != key(key_id).digests.get("weights"):
        raise ArtifactCorrupt("the head and class map of a version are not those it was published with")
    weights: Mapping[str, torch.Tensor] = {}
    if facts.network_file:
        source, source_key = facts.network_file
        if source != file_id:
            tensors = _tensors(service.vault.open(source, key(source_key)))
        weights = _network(tensors, facts.network_prefix)
    statistics = None
    if facts.statistics_file:
        statistics = _statistics(service.vault.open(facts.statistics_file, key(key_id)), key(key_id))
    snapshot = Snapshot(
        input=facts.input,
        grid=facts.grid,
        network=facts.network,
        weights=weights,
        classes=classes,
        head=head,
        centroids={name: _centroid(service, row, key(row.key_id)) for name, row in facts.centroids},
        statistics=statistics,
        **facts.settings,
    )
    digest = class_map_digest([id.bytes for id in class_ids], classes)
    return Loaded(snapshot, class_ids, digest, key(key_id))


def network_of(service: Service, version_id: UUID) -> Mapping[str, torch.Tensor]:
    """The network of a version's feature map, whatever became of its head; none of `identity`. Raises
    `ArtifactCorrupt`."""
    with service.db.read() as session:
        file, prefix = _network_source(session, session.get_one(Version, version_id))
    if file is None:
        return {}
    file_id, key_id = file
    return _network(_tensors(service.vault.open(file_id, service.vault.key(key_id))), prefix)


def statistics_of(service: Service, version_id: UUID) -> Statistics:
    """The stored statistics of a version, a retired one too where they stay. Raises `ArtifactCorrupt`."""
    names: tuple[UUID, UUID] | None = None
    while True:
        with service.db.read() as session:
            row = session.get_one(Version, version_id)
            before, names = names, (row.statistics_file_id or row.file_id, row.key_id)
            if row.statistics_file_id is None:
                raise ArtifactCorrupt(f"version {row.number} has no statistics")
        try:
            key = service.vault.key(names[1])
            return _statistics(service.vault.open(names[0], key), key)
        except ArtifactCorrupt:  # unless they were sealed anew meanwhile
            if names == before:
                raise


def _tensors(raw: bytes) -> dict[str, torch.Tensor]:
    try:
        return parse(raw)
    except SafetensorError:
        raise ArtifactCorrupt("a stored file is not safetensors") from None


def _network(tensors: Mapping[str, torch.Tensor], prefix: str) -> Mapping[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _head(tensors: Mapping[str, torch.Tensor]) -> Head:
    try:
        normalise = bool(tensors["head.normalise"].item())
        return Head(tensors["head.weight"], tensors["head.bias"], normalise, "head.expanded" in tensors)
    except KeyError as missing:
        raise ArtifactCorrupt(f"a version's file lacks {missing}") from None


def _statistics(raw: bytes, key: KeyObject) -> Statistics:
    try:
        found = from_arrays(dict(parse_arrays(raw)))
    except (SafetensorError, KeyError):
        raise ArtifactCorrupt("a stored file is not the statistics of a version") from None
    if found.digest() != key.digests.get("statistics"):
        raise ArtifactCorrupt("the statistics of a version are not those it was published with")
    return found


def _centroid(service: Service, row: CentroidRow, key: KeyObject) -> Centroid:
    raw = service.vault.open_value(row.ciphertext, key, row.id)
    return Centroid(np.frombuffer(raw, "<i8").astype(np.int64), row.count)


def _names(facts: _Facts) -> tuple[Any, ...]:
    """The files and keys that the rows name: where these are the same, reading again helps nothing."""
    rows = tuple((row.id, row.key_id) for _, row in facts.centroids)
    return (facts.state, facts.file, facts.statistics_file, facts.network_file, facts.classes, rows)


def _read(service: Service, version_id: UUID, centroids: bool, statistics: bool) -> _Facts:
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
        network_file, prefix = _network_source(session, version)
        return _Facts(
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
) -> tuple[tuple[tuple[str, UUID], ...], tuple[tuple[str, CentroidRow], ...]]:
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
        select(CentroidRow)
        .join(VersionClass, VersionClass.centroid_id == CentroidRow.id)
        .where(VersionClass.version_id == version_id)
    )
    by_id = {row.id: row for row in rows}
    return classes, tuple((name, by_id[at]) for name, _, at in entries if at in by_id)


def _network_source(session: Session, version: Version) -> tuple[tuple[UUID, UUID] | None, str]:
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
