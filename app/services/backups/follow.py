"""From a shard of a backup to the newest file that took its place: key objects name what they replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from app.errors import ArtifactCorrupt
from app.files import LocalFiles
from app.service import Service
from app.services.backups.backup import Tell, copy_file
from app.tables import RowIndex, Shard

ALL_AGES = -86_400.0  # seconds: files dated by a clock that is ahead too
AT_ONCE = 500  # shards of one transaction


@dataclass(frozen=True)
class Sealed:
    """A file and the key that opens it."""

    file_id: UUID
    key_id: UUID


def follow(service: Service, sources: Sequence[LocalFiles], tell: Tell) -> tuple[int, list[Shard]]:
    """Have every shard name what there is of it now; how many were rewritten, and those that are nowhere."""
    chains = _chains(service)
    with service.db.read() as session:
        shards = session.scalars(select(Shard).order_by(Shard.id)).all()
    followed, lost = 0, []
    for at in range(0, len(shards), AT_ONCE):
        tell(at, len(shards), "shards")
        moved: dict[UUID, Sealed] = {}
        for shard in shards[at : at + AT_ONCE]:
            before = Sealed(shard.file_id, shard.key_id)
            now = _newest(service, sources, chains, before)
            if now is None:
                lost.append(shard)
            elif now != before:
                moved[shard.id] = now
        with service.db.begin() as session:
            for id, now in moved.items():
                row = session.get_one(Shard, id)
                row.file_id, row.key_id = now.file_id, now.key_id
        followed += len(moved)
    return followed, lost


def follow_indexes(service: Service, sources: Sequence[LocalFiles]) -> None:
    """Have every index of rows name what there is of it now. One that is nowhere goes: no row that is sent
    again could be told by it."""
    chains = _chains(service)
    with service.db.read() as session:
        indexes = session.scalars(select(RowIndex).order_by(RowIndex.id)).all()
    for index in indexes:
        before = Sealed(index.file_id, index.key_id)
        now = _newest(service, sources, chains, before)
        if now != before:
            with service.db.begin() as session:
                row = session.get_one(RowIndex, index.id)
                if now is None:
                    session.delete(row)
                else:
                    row.file_id, row.key_id = now.file_id, now.key_id


def opens(service: Service, sources: Sequence[LocalFiles], sealed: Sealed) -> bool:
    """Whether key and file are there; a file that only a backup has is copied."""
    try:
        service.vault.key(sealed.key_id)
    except ArtifactCorrupt:
        return False
    assert isinstance(service.vault.files, LocalFiles)
    into = service.vault.files
    return any(copy_file(source, sealed.file_id, into) for source in (into, *sources))


def _chains(service: Service) -> dict[UUID, Sealed]:
    """For each file that was rewritten what took its place."""
    found = {}
    for key_id in service.vault.keys.older_than(ALL_AGES):
        key = service.vault.key(key_id)
        if key.replaces is not None:
            (name,) = key.digests
            found[key.replaces] = Sealed(UUID(hex=name), key_id)
    return found


def _newest(
    service: Service, sources: Sequence[LocalFiles], chains: dict[UUID, Sealed], sealed: Sealed
) -> Sealed | None:
    now: Sealed | None = sealed
    while now is not None and not opens(service, sources, now):
        now = chains.get(now.file_id)
    return now
