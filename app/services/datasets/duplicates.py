"""Uploads that were sent before: found by key objects, never by a row; the index is in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import select

from app.db import Database
from app.errors import ArtifactCorrupt
from app.intake.clean import Options
from app.intake.media import Format
from app.service import Service
from app.services.callers.access import digest
from app.tables import Dataset
from app.vault import KeyObject

Mark = tuple[UUID, str, str]  # tenant, SHA-256 of the bytes, what the query made of them


@dataclass
class _Index:
    """The marks of every live dataset that this process has looked at."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    publishing: threading.Lock = field(default_factory=threading.Lock)
    by_mark: dict[Mark, UUID] = field(default_factory=dict)
    seen: dict[UUID, int] = field(default_factory=dict)  # dataset -> its revision then


_indices: WeakKeyDictionary[Database, _Index] = WeakKeyDictionary()


def marks(
    service: Service, tenant_id: UUID, sha256: str, format: Format, options: Options
) -> Mapping[str, str]:
    """The digests of an upload for its dataset's key object: the bytes, their fingerprint, their meaning.

    The same bytes under another label or split, or to be forgotten, are another dataset.
    """
    meaning = f"meaning {format} label={options.label!r} split={options.split!r}"
    meaning += " for_forget" if options.for_forget else ""
    return {
        "sha256": sha256,
        "upload": digest(service, tenant_id, f"upload {sha256}"),
        "meaning": digest(service, tenant_id, meaning),
    }


def find(service: Service, tenant_id: UUID, marks: Mapping[str, str]) -> UUID | None:
    """The live dataset of these bytes, if its key object still says so: an erasure takes that away."""
    index = _index(service)
    with service.db.read() as session:
        query = select(Dataset.id, Dataset.revision).filter_by(tenant_id=tenant_id, deleted_at=None)
        live = {id: revision for id, revision in session.execute(query)}
    with index.lock:
        unseen = [id for id, revision in live.items() if index.seen.get(id) != revision]
    for dataset_id in unseen:  # an erasure in it moved the revision
        _drop(index, dataset_id)
        _look(service, index, tenant_id, dataset_id)
        index.seen[dataset_id] = live[dataset_id]
    found = index.by_mark.get((tenant_id, marks["sha256"], marks["meaning"]))
    if found is None or found not in live or not _look(service, index, tenant_id, found):
        return None
    return found


def remember(service: Service, tenant_id: UUID, dataset_id: UUID, key: KeyObject) -> None:
    """Put a new dataset in the index."""
    index = _index(service)
    with index.lock:
        index.seen.setdefault(dataset_id, 1)
        index.by_mark[tenant_id, key.digests["sha256"], key.digests["meaning"]] = dataset_id


def forget(service: Service, dataset_id: UUID) -> None:
    """Take a dataset whose key object is gone out of the index of this process; others notice by its
    revision."""
    _drop(_index(service), dataset_id)


@contextmanager
def one_at_a_time(service: Service) -> Iterator[None]:
    """Hold back other uploads of this process between the last look and the commit."""
    with _index(service).publishing:
        yield


def _index(service: Service) -> _Index:
    return _indices.setdefault(service.db, _Index())


def _look(service: Service, index: _Index, tenant_id: UUID, dataset_id: UUID) -> bool:
    """Whether the dataset's key object is there; learns its marks."""
    try:
        key = service.vault.key(dataset_id)
    except ArtifactCorrupt:  # an erasure took it
        _drop(index, dataset_id)
        return False
    if "sha256" in key.digests:
        remember(service, tenant_id, dataset_id, key)
    return True


def _drop(index: _Index, dataset_id: UUID) -> None:
    with index.lock:
        for mark in [mark for mark, found in index.by_mark.items() if found == dataset_id]:
            del index.by_mark[mark]
