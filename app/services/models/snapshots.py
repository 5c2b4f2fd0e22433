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
from uuid import UUID

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as dump_arrays
from safetensors.torch import load as parse
from safetensors.torch import save as dump

from app import ids
from app.errors import ArtifactCorrupt
from app.methods.base import Centroid, Head, Snapshot
from app.methods.parts.digest import class_map_digest
from app.methods.parts.statistics import Statistics, from_arrays
from app.service import Service
from app.services.models import version_facts
from app.services.models.version_facts import NETWORK, Facts
from app.tables import Centroid as CentroidRow
from app.tables import Version
from app.vault import KeyObject


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
    facts = version_facts.read(service, version_id, centroids, statistics)
    while True:
        try:
            return _open(service, facts)
        except ArtifactCorrupt:
            now = version_facts.read(service, version_id, centroids, statistics)
            if now.names() == facts.names():
                raise
            facts = now


def _open(service: Service, facts: Facts) -> Loaded:
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
        file, prefix = version_facts.network_source(session, session.get_one(Version, version_id))
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
