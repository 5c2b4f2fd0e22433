"""A backup: the rows of every table as of one moment, and the encrypted files that they name.

Never the keys and never the ledger: they have a directory of their own, which is mirrored so that deletions
follow. A backup by itself opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, ValidationError

from app import __version__
from app.db import clock
from app.errors import InUse, InvalidRequest
from app.files import LocalFiles, write_durably
from app.schemas.times import Instant
from app.service import Service
from app.services import schema
from app.services.backups import rows
from app.services.erasure import ledger
from app.services.erasure.orphans import NAME_FILES

FORMAT = 1
MANIFEST, TABLES, OBJECTS = "manifest.json", "tables", "objects"
CHUNK = 1 << 20

Tell = Callable[[int, int, str], None]  # done, of how many, what


class Manifest(BaseModel):
    """What a backup is; written last, so that a folder without it is no backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    software: str
    schema_revision: str
    taken_at: Instant
    ledger_sequence: int
    rows: dict[str, int]
    files: int
    missing: int  # files that an erasure took away while the backup ran


def write(service: Service, folder: Path, tell: Tell) -> Manifest:
    """Write a backup into an empty or new folder. Raises `InUse` where something lies there."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(folder.iterdir()):
        raise InUse("the folder of a backup must be empty or new")
    (folder / TABLES).mkdir(mode=0o700)
    revision = schema.current(service.db) or ""
    counts: dict[str, int] = {}
    with service.db.read() as session:  # one snapshot for all tables
        taken_at, sequence = clock(session), ledger.sequence(session)
        tables = rows.tables()
        for done, table in enumerate(tables):
            tell(done, len(tables), "tables")
            counts[table.name] = rows.dump(session, table, folder / TABLES / f"{table.name}.jsonl.gz")
        found = session.scalars(sa.union_all(*(sa.select(column) for column in NAME_FILES)))
        named = sorted({id for id in found if id is not None})
    missing = _copy_files(service, named, LocalFiles(folder / OBJECTS), tell)
    manifest = Manifest(
        format=FORMAT,
        software=__version__,
        schema_revision=revision,
        taken_at=taken_at,
        ledger_sequence=sequence,
        rows=counts,
        files=len(named) - missing,
        missing=missing,
    )
    raw = manifest.model_dump_json(indent=1).encode() + b"\n"
    write_durably(folder / MANIFEST, folder / f"{MANIFEST}.tmp", [raw])
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What a folder says it is; raises `InvalidRequest` where it is no backup that this release reads."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidRequest("there is no finished backup in that folder") from None
    except ValidationError:
        raise InvalidRequest("the manifest of that backup cannot be read") from None
    if manifest.format != FORMAT:
        raise InvalidRequest(f"that backup has format {manifest.format}; this release reads {FORMAT}")
    return manifest


def copy_file(source: LocalFiles, id: UUID, into: LocalFiles) -> bool:
    """Copy one file under its id, unless it is there already; False where neither has it."""
    if _has(into, id):
        return True
    try:
        with source.open(id) as file:
            into.put(id, iter(lambda: file.read(CHUNK), b""))
    except FileNotFoundError:
        return False
    return True


def _has(files: LocalFiles, id: UUID) -> bool:
    try:
        files.open(id).close()
    except FileNotFoundError:
        return False
    return True


def _copy_files(service: Service, named: list[UUID], into: LocalFiles, tell: Tell) -> int:
    missing = 0
    assert isinstance(service.vault.files, LocalFiles)
    for done, id in enumerate(named):
        tell(done, len(named), "files")
        missing += not copy_file(service.vault.files, id, into)
    return missing
