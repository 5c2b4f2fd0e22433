"""A restore: rows and files of a backup into an empty database, then everything that was erased since.

It needs the mirrored directory of keys and ledger as they are now, and never rolls them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock, touch
from app.errors import ArtifactCorrupt, InUse, InvalidRequest, MissingData
from app.files import LocalFiles
from app.service import Service
from app.services import schema
from app.services.backups import rows
from app.services.backups.backup import OBJECTS, TABLES, Manifest, Tell, copy_file, read_manifest
from app.services.backups.reconcile import reconcile
from app.tables import Checkpoint, LedgerEntry, Restore, Tenant


def restore(service: Service, folder: Path, newer: Sequence[Path], tell: Tell) -> dict[str, Any]:
    """Load a backup; returns what came of it. `newer` are later backups, whose files may be needed.

    Raises `InUse` where the database holds something, `MissingData` where keys or ledger are not there, and
    `InvalidRequest` where the folder is no backup. The service is not ready until all is taken out again
    that was erased after the backup; starting it does that. One that was interrupted is taken up again.
    """
    manifest = read_manifest(folder)
    sources = [LocalFiles(one / OBJECTS) for one in (folder, *newer)]
    restore_id = _begun(service, manifest)
    if restore_id is None:
        _prepare(service, manifest)
        restore_id = ids.new()
        with service.db.begin() as session:
            _load(service, session, folder, manifest, tell)
            session.add(_row(session, restore_id, manifest))
        schema.upgrade(service.db)
    _copy(service, sources[0], tell)
    report = reconcile(service, sources, tell)
    with service.db.begin() as session:
        session.get_one(Restore, restore_id).report = report
        touch(session)
    return report


def _begun(service: Service, manifest: Manifest) -> UUID | None:
    """A restore of this backup into this database that did not come to its end."""
    if schema.current(service.db) != schema.head():
        return None
    with service.db.read() as session:
        query = select(Restore.id).where(
            Restore.finished_at.is_(None),
            Restore.taken_at == manifest.taken_at,
            Restore.ledger_sequence == manifest.ledger_sequence,
        )
        return session.scalar(query.limit(1))


def _row(session: Session, id: UUID, manifest: Manifest) -> Restore:
    """From the first row on the database says that it is not to be served."""
    return Restore(
        id=id,
        created_at=clock(session),
        taken_at=manifest.taken_at,
        ledger_sequence=manifest.ledger_sequence,
        report={},
        finished_at=None,
    )


def _prepare(service: Service, manifest: Manifest) -> None:
    """An empty database with the schema of the backup."""
    if schema.current(service.db) is not None:
        with service.db.read() as session:
            if session.scalar(select(Tenant.id).limit(1)) is not None:
                raise InUse("the database is not empty: restore into a new one, and move this one away first")
        schema.downgrade(service.db, "base")
    if manifest.schema_revision not in schema.known():
        raise InvalidRequest(
            f"the backup has schema {manifest.schema_revision}, which this release does not know: "
            "restore it with the release that made it, or a newer one"
        )
    schema.upgrade(service.db, manifest.schema_revision)


def _load(service: Service, session: Session, folder: Path, manifest: Manifest, tell: Tell) -> None:
    """Every table, or none: keys and ledger are looked at before anything is committed."""
    tables = [table for table in rows.tables() if table.name in manifest.rows]
    for done, table in enumerate(tables):
        tell(done, len(tables), "tables")
        found = rows.load(session, table, folder / TABLES / f"{table.name}.jsonl.gz")
        if found != manifest.rows[table.name]:
            raise InvalidRequest(f"the backup is damaged: {table.name} has {found} rows of another number")
    _check_keys(service, session)
    _check_ledger(service, session)
    session.execute(delete(Checkpoint))  # of jobs that start again


def _check_keys(service: Service, session: Session) -> None:
    for tenant_id in session.scalars(select(Tenant.id)):
        try:
            service.vault.key(tenant_id)
        except ArtifactCorrupt:
            raise MissingData(
                f"the keys are not there: bring back the mirrored directory {service.settings.keys_dir.name} "
                "as it is now, then restore again; without it nothing can be opened"
            ) from None


def _check_ledger(service: Service, session: Session) -> None:
    there = set(service.ledger.names())
    for request_id, kind in session.execute(select(LedgerEntry.request_id, LedgerEntry.kind)):
        if kind in ("approve", "lift") and (request_id, kind) not in there:
            raise MissingData(
                "the ledger is not whole: an erasure that the backup knows is not in it; bring back the "
                "mirrored directory as it is now, then restore again; without it the erased would come back"
            )


def _copy(service: Service, source: LocalFiles, tell: Tell) -> None:
    """Add the files of the backup that are not there; none is overwritten."""
    assert isinstance(service.vault.files, LocalFiles)
    named: list[UUID] = list(source.older_than(-86_400))
    for done, id in enumerate(named):
        tell(done, len(named), "files")
        copy_file(source, id, service.vault.files)
