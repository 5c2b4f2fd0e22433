"""A version between memory and its file: `save` seals it, `load` opens it and checks every digest.

The file is safetensors: `head.weight` (classes, width), `head.bias` (classes,), `head.normalise` (1,) uint8,
and `network.*` where this version trained its network. Later versions take the network from the source of
their feature map. The label keys of the head's rows are the names in the class map, in byte order.
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
from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.errors import ArtifactCorrupt, NotFound, Purged
from app.methods.base import Centroid, Head, Snapshot
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.digest import class_map_digest, weights_digest
from app.methods.parts.grid import Grid
from app.service import Service
from app.tables import Centroid as CentroidRow
from app.tables import FeatureMap, Model, ModelClass, Upload, Version, VersionClass
from app.vault import KeyObject

NETWORK = "network."
GRID: TypeAdapter[Grid] = TypeAdapter(Grid)


@dataclass(frozen=True)
class Saved:
    """A sealed version file and its key object, which the caller still has to store under an id."""

    file_id: UUID
    key: KeyObject


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
    network_file: tuple[UUID, UUID] | None  # None for `identity`
    network_prefix: str  # of the network's tensors in that file
    input: InputSpec
    grid: Grid
    network: NetworkSpec
    classes: tuple[tuple[str, UUID], ...]  # name and id, by the bytes of the name
    centroids: tuple[tuple[str, CentroidRow], ...]


def save(service: Service, snapshot: Snapshot, *, trained_network: bool, key: KeyObject) -> Saved:
    """Seal a version's file under `key`; gives the key object its digests and a nonce, and stores no key.

    The digests are that of the file, under the hex of its id, and `weights` (`docs/digests.md`).
    """
    head = snapshot.head
    assert head is not None
    assert len(snapshot.classes) == len(head.weight) == len(head.bias)
    tensors = {
        "head.weight": head.weight,
        "head.bias": head.bias,
        "head.normalise": torch.tensor([head.normalise], dtype=torch.uint8),
    }
    if trained_network:
        tensors |= {NETWORK + name: tensor for name, tensor in snapshot.weights.items()}
    file_id = ids.new()
    raw = dump({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    key = service.vault.seal(file_id, [raw], key)
    digests = {**key.digests, "weights": weights_digest(head, snapshot.classes)}
    return Saved(file_id, replace(key, digests=digests, nonce=key.nonce or os.urandom(32)))


def load(service: Service, version_id: UUID, *, centroids: bool = True) -> Loaded:
    """Open a version. Raises `NotFound`, `Purged`, or `ArtifactCorrupt` where a byte is not as written.

    An erasure running beside may take a file away after its row was read: the row is then read again, and
    only what it names now decides. Owns its (read) transactions.
    """
    facts = _read(service, version_id, centroids)
    while True:
        try:
            return _open(service, facts)
        except ArtifactCorrupt:
            now = _read(service, version_id, centroids)
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
    if weights_digest(head, classes) != key(key_id).digests.get("weights"):
        raise ArtifactCorrupt("the head and class map of a version are not those it was published with")
    weights: Mapping[str, torch.Tensor] = {}
    if facts.network_file:
        source, source_key = facts.network_file
        if source != file_id:
            tensors = _tensors(service.vault.open(source, key(source_key)))
        weights = {
            name.removeprefix(facts.network_prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(facts.network_prefix)
        }
    snapshot = Snapshot(
        input=facts.input,
        grid=facts.grid,
        network=facts.network,
        weights=weights,
        classes=classes,
        head=head,
        centroids={name: _centroid(service, row, key(row.key_id)) for name, row in facts.centroids},
    )
    digest = class_map_digest([id.bytes for id in class_ids], classes)
    return Loaded(snapshot, class_ids, digest, key(key_id))


def _tensors(raw: bytes) -> dict[str, torch.Tensor]:
    try:
        return parse(raw)
    except SafetensorError:
        raise ArtifactCorrupt("a stored file is not safetensors") from None


def _head(tensors: Mapping[str, torch.Tensor]) -> Head:
    try:
        normalise = bool(tensors["head.normalise"].item())
        return Head(tensors["head.weight"], tensors["head.bias"], normalise)
    except KeyError as missing:
        raise ArtifactCorrupt(f"a version's file lacks {missing}") from None


def _centroid(service: Service, row: CentroidRow, key: KeyObject) -> Centroid:
    raw = service.vault.open_value(row.ciphertext, key, row.id)
    return Centroid(np.frombuffer(raw, "<i8").astype(np.int64), row.count)


def _names(facts: _Facts) -> tuple[Any, ...]:
    """The files and keys that the rows name: where these are the same, reading again helps nothing."""
    rows = tuple((row.id, row.key_id) for _, row in facts.centroids)
    return (facts.state, facts.file, facts.network_file, facts.classes, rows)


def _read(service: Service, version_id: UUID, centroids: bool) -> _Facts:
    with service.db.read() as session:
        version = session.get(Version, version_id)
        if version is None:
            raise NotFound("there is no such version")
        if version.state == "purged":
            raise Purged(f"version {version.number} was destroyed")
        model = session.get_one(Model, version.model_id)
        classes, rows = _class_map(session, version_id, centroids)
        network_file, prefix = _network_source(session, version)
        return _Facts(
            version_id=version_id,
            state=version.state,
            file=(version.file_id, version.key_id),
            network_file=network_file,
            network_prefix=prefix,
            input=InputSpec.model_validate(model.input),
            grid=GRID.validate_python(model.grid),
            network=NetworkSpec.model_validate(model.network),
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
