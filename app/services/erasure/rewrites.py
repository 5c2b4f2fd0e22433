"""Stored rows without the erased ones: shards as sent, shards on feature maps, indexes of rows.

The new file and its key come first, then the commit that names them, and only then the old key and file are
destroyed. The new key object names what it replaces, so whoever repeats a rewrite that was stopped between
the last two steps does the last one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app import ids
from app.errors import ArtifactCorrupt
from app.methods.parts.grid import LIMIT
from app.service import Service
from app.services.datasets.shard_files import dump, parse
from app.services.erasure import counts
from app.services.erasure.parts import parts
from app.tables import RowIndex, Shard
from app.vault import KeyObject

AT_ONCE = 50  # files of one transaction
WRITERS = 4  # files that are written at once

Positions = NDArray[np.int64]  # rising
See = Callable[
    [Session, Mapping[UUID, Positions]], None
]  # told, by dataset, in the transaction that takes them


@dataclass(frozen=True)
class Stored:
    """A file of rows, as its row names it."""

    table: type[Shard] | type[RowIndex]
    id: UUID
    dataset_id: UUID
    is_sent: bool  # not on a grid: it knows labels and splits
    file_id: UUID
    key_id: UUID


@dataclass(frozen=True)
class Rewritten:
    """What stands in its place."""

    old: Stored
    file_id: UUID
    key_id: UUID
    rows: int  # that are left
    clipped: int  # values at an end of the grid
    removed: counts.Removed


def rewrite(service: Service, gone: Mapping[UUID, Positions], tell: Callable[[float], None], see: See) -> int:
    """Take rows out of every file that holds some; returns how many files were written anew.

    Each is written once whatever the number of requests; one that is left empty is removed with its row.
    """
    written = 0
    clean: set[UUID] = set()  # files that hold none
    while waiting := [one for one in _holding(service, gone) if one.file_id not in clean]:
        for at in range(0, len(waiting), AT_ONCE):
            tell(at / len(waiting))
            part = waiting[at : at + AT_ONCE]
            written += _rewrite_part(service, part, gone, see, clean)
    _remove_empty(service, gone)
    return written


def _rewrite_part(
    service: Service,
    part: Sequence[Stored],
    gone: Mapping[UUID, Positions],
    see: See,
    clean: set[UUID],
) -> int:
    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(lambda one: _without(service, one, gone[one.dataset_id]), part))
        made = [one for one in found if one is not None]
        named = _name(service, made, see) if made else set()
        # where somebody else was first, nothing names what was made here
        over = [one.old if one.old.id in named else one for one in made]
        list(pool.map(lambda one: service.vault.destroy(one.key_id, one.file_id), over))
    clean.update(old.file_id for old, one in zip(part, found, strict=True) if one is None)
    clean.update(one.file_id for one in made)
    return len(named)


def _holding(service: Service, gone: Mapping[UUID, Positions]) -> list[Stored]:
    """Files whose positions reach over an erased one, read now: a job may store features meanwhile."""
    found: list[Stored] = []
    with service.db.read() as session:
        for part in parts(gone):
            shards = session.execute(
                select(
                    Shard.id,
                    Shard.dataset_id,
                    Shard.feature_map_id,
                    Shard.file_id,
                    Shard.key_id,
                    Shard.first,
                    Shard.rows,
                ).where(Shard.dataset_id.in_(part))
            )
            for id, dataset_id, map_id, file_id, key_id, first, rows in shards:
                low, high = np.searchsorted(gone[dataset_id], (first, first + rows))
                if low < high:
                    found.append(Stored(Shard, id, dataset_id, map_id is None, file_id, key_id))
            indexes = session.execute(
                select(RowIndex.id, RowIndex.dataset_id, RowIndex.file_id, RowIndex.key_id).where(
                    RowIndex.dataset_id.in_(part)
                )
            )
            found += [Stored(RowIndex, id, at, False, file, key) for id, at, file, key in indexes]
    return found


def _without(service: Service, old: Stored, gone: Positions) -> Rewritten | None:
    """The file without those rows, sealed under a fresh key; None where it holds none, or is gone itself."""
    try:
        key = service.vault.key(old.key_id)
        arrays, metadata = parse(service.vault.open(old.file_id, key))
    except ArtifactCorrupt:
        if _is_destroyed(service, old):
            return None
        raise
    out = np.isin(arrays["positions"], gone)
    if not out.any():
        _repeat_last_step(service, old.key_id)
        return None
    removed = counts.of(arrays, metadata, out) if old.is_sent else counts.Removed()
    left = {name: array[~out] for name, array in arrays.items()}
    if "label" in left:
        left["label"], metadata = _relabelled(left["label"], metadata)
    file_id, key_id = ids.new(), ids.new()
    fresh = KeyObject(key=os.urandom(32), replaces=old.file_id, replaces_key=old.key_id)
    service.vault.write_key(key_id, service.vault.seal(file_id, dump(left, metadata), fresh))
    return Rewritten(
        old, file_id, key_id, rows=int(np.sum(~out)), clipped=_at_the_ends(left), removed=removed
    )


def _is_destroyed(service: Service, old: Stored) -> bool:
    """Whether another purge took the file or its key away, so that nobody can read what it held."""
    with service.db.read() as session:
        now = session.execute(select(old.table.file_id).where(old.table.id == old.id)).scalar()
    if now != old.file_id:
        return True
    try:
        service.vault.key(old.key_id)
    except ArtifactCorrupt:
        return True
    return False


def _relabelled(labels: NDArray[Any], metadata: dict[str, str]) -> tuple[NDArray[Any], dict[str, str]]:
    """Labels and their names without those that no row has any more."""
    names = json.loads(metadata["classes"])
    used = np.unique(labels[labels >= 0])
    local = np.where(labels >= 0, np.searchsorted(used, labels), -1).astype(np.int32)
    return local, {**metadata, "classes": json.dumps([names[i] for i in used], ensure_ascii=False)}


def _at_the_ends(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Values that the grid may have cut off, of the rows that are left: how many it did cut off counted the
    erased ones too."""
    x = arrays.get("x")
    return int(np.count_nonzero(np.abs(x) >= LIMIT)) if x is not None and x.dtype == np.int16 else 0


def _name(service: Service, made: Sequence[Rewritten], see: See) -> set[UUID]:
    """Have the rows name the new files, and the counts of their datasets follow; gives the rows that do."""
    named: set[UUID] = set()
    removed: dict[UUID, counts.Removed] = {}
    with service.db.begin() as session:
        counts.lock(session, {one.old.dataset_id for one in made})
        for one in made:
            table, old = one.old.table, one.old
            values: dict[str, Any] = {"file_id": one.file_id, "key_id": one.key_id}
            if table is RowIndex or one.rows == 0:
                values["rows"] = one.rows
            if table is Shard and not old.is_sent:
                values["clipped"] = one.clipped
            mine = update(table).where(table.id == old.id, table.file_id == old.file_id).values(values)
            if session.execute(mine.returning(table.id)).one_or_none() is None:
                continue
            named.add(old.id)
            if old.is_sent:
                removed[old.dataset_id] = removed.get(old.dataset_id, counts.Removed()) + one.removed
        for dataset_id, rows in sorted(removed.items()):
            counts.reduce(session, dataset_id, rows)
        see(session, {dataset_id: rows.positions for dataset_id, rows in removed.items()})
    return named


def _remove_empty(service: Service, gone: Mapping[UUID, Positions]) -> None:
    """Remove files in which no row is left: their keys open nothing that says anything, but know what they
    replaced."""
    for table in (Shard, RowIndex):
        for part in parts(gone):
            with service.db.read() as session:
                mine = table.dataset_id.in_(part), table.rows == 0
                empty = session.execute(select(table.id, table.key_id, table.file_id).where(*mine)).all()
            if not empty:
                continue
            for _, key_id, _ in empty:
                _repeat_last_step(service, key_id)
            with service.db.begin() as session:
                session.execute(delete(table).where(table.id.in_([id for id, _, _ in empty])))
            for _, key_id, file_id in empty:
                service.vault.destroy(key_id, file_id)


def _repeat_last_step(service: Service, key_id: UUID) -> None:
    """Destroy what a rewritten file replaced, if whoever wrote it stopped before that."""
    try:
        key = service.vault.key(key_id)
    except ArtifactCorrupt:
        return
    if key.replaces_key is not None and key.replaces is not None:
        service.vault.destroy(key.replaces_key, key.replaces)


def destroy_indexes(service: Service, feature_map_ids: Sequence[UUID]) -> None:
    """Destroy the indexes of rows on feature maps that nobody uses any more."""
    on_them = RowIndex.feature_map_id.in_(list(feature_map_ids))
    with service.db.read() as session:
        found = session.scalars(select(RowIndex).where(on_them)).all()
    for row in found:
        service.vault.destroy(row.key_id, row.file_id)
    if found:
        with service.db.begin() as session:
            session.execute(delete(RowIndex).where(RowIndex.id.in_([row.id for row in found])))
