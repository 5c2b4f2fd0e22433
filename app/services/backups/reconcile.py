"""What a restored database says is brought up to keys and ledger, which never go back.

Shards that were rewritten since are followed to the file that replaced them; what is nowhere counts as lost.
Erasures of the ledger that the backup does not know are entered anew, and versions that hold what is gone, or
that no longer open, are queued to be rebuilt from the rows that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.db import clock, touch
from app.errors import ArtifactCorrupt, Purged, VersionNotReady
from app.files import LocalFiles
from app.ledger_objects import LedgerObject
from app.service import Service
from app.services.backups.backup import Tell
from app.services.backups.follow import follow, follow_indexes
from app.services.backups.lost import RESTORED, add_request, settle
from app.services.erasure import ledger
from app.services.forget import due, sweeps
from app.services.forget.rebuilds import queue_rebuild
from app.services.jobs import DONE
from app.services.models import snapshots
from app.tables import ForgetRequest, Job, Model, Restore, Tenant, Version


def reconcile(service: Service, sources: Sequence[LocalFiles], tell: Tell) -> dict[str, Any]:
    """Bring the database up to keys and ledger; counts of what that took. `sources` hold files of backups."""
    followed, lost = follow(service, sources, tell)
    follow_indexes(service, sources)
    lost_rows, lost_datasets = settle(service, lost)
    applied, brought_back = _enter(service)
    sweeps.commit_ledger_objects(service)
    _date(service, brought_back)
    rebuilds, deleted = _rebuild(service)
    return {
        "shards_followed": followed,
        "rows_lost": lost_rows,
        "datasets_deleted_again": lost_datasets,
        "erasures_applied": applied,
        "versions_to_rebuild": rebuilds,
        "models_deleted_again": deleted,
    }


def finish(service: Service) -> bool:
    """Close a restore once nothing that it brought back is tainted; the sweep asks.

    One without a report was interrupted: what was erased after its backup may not even be entered.
    """
    with service.db.begin() as session:
        restores = session.scalars(select(Restore).where(Restore.finished_at.is_(None))).all()
        if not all(restore.report for restore in restores) or not restores:
            return False
        working = select(Job.id).where(
            Job.state.not_in(DONE), or_(Job.kind == "forget", (Job.kind == "purge") & Job.lane.is_not(None))
        )
        if session.scalar(working.limit(1)) is not None or _tainted(session):
            return False
        for restore in restores:
            restore.finished_at = clock(session)
        touch(session)
    return True


def _tainted(session: Session) -> bool:
    ready = (
        select(Version.id)
        .join(Model, Model.id == Version.model_id)
        .where(Version.state == "ready", Model.deleted_at.is_(None))
    )
    return bool(ledger.tainted(session, session.scalars(ready).all()))


def _enter(service: Service) -> tuple[int, list[UUID]]:
    """Requests that the backup does not know, as the ledger's objects tell of them; how many erasures, and
    which requests."""
    applied, brought_back = 0, []
    for found in service.ledger.all():
        if found.kind != "approve":
            continue
        with service.db.begin() as session:
            request = session.get(ForgetRequest, found.request_id)
            tenant = session.get(Tenant, UUID(hex=found.body["tenant"]))
            if tenant is None or (request is not None and request.sequence is not None):
                continue
            applied += service.ledger.get(found.request_id, "lift") is None
            if request is None:
                _add_request(session, found)
                brought_back.append(found.request_id)
    return applied, brought_back


def _date(service: Service, requests: Sequence[UUID]) -> None:
    """Say of requests from the ledger when they are due by law: it keeps neither their dates nor their
    regulation. After their jobs are queued, which wait for nothing."""
    zone = service.settings.forget.time_zone
    with service.db.begin() as session:
        for id in requests:
            if request := session.get(ForgetRequest, id):
                request.due_at = due.by_law(None, request.submitted_at, zone)
        touch(session)


def _add_request(session: Session, found: LedgerObject) -> None:
    body = found.body
    request = add_request(
        session,
        UUID(hex=body["tenant"]),
        found.request_id,
        datetime.fromisoformat(body["at"]),
        body["scope"],
        list(body["targets"]),
        body["shared_rows"],
    )
    request.models = body["models"]


def _rebuild(service: Service) -> tuple[int, int]:
    """Queue versions that no longer open though nothing of theirs was erased; how many are rebuilt with them
    and with the tainted ones, whose jobs are queued already, and how many models are deleted.

    A model none of whose versions opens, and none of which is tainted, was deleted after the backup.
    """
    count = deleted = 0
    with service.db.read() as session:
        models = session.scalars(select(Model).where(Model.deleted_at.is_(None))).all()
    for model in models:
        with service.db.read() as session:
            ready = session.scalars(select(Version).filter_by(model_id=model.id, state="ready")).all()
            tainted = set(ledger.tainted(session, [row.id for row in ready]))
        shut = {row.id for row in ready if not _opens(service, row)}
        with service.db.begin() as session:
            if ready and not tainted and len(shut) == len(ready):
                session.get_one(Model, model.id).deleted_at = clock(session)
                deleted += 1
            elif shut - tainted:
                queue_rebuild(session, model, sorted(shut - tainted), service.settings, RESTORED)
            count += len(shut | tainted)
            touch(session)
    return count, deleted


def _opens(service: Service, row: Version) -> bool:
    """Whether everything that a version stands on is there: head, network, statistics, centroids."""
    try:
        snapshots.load(service, row.id, statistics=row.statistics_file_id is not None)
    except (ArtifactCorrupt, Purged, VersionNotReady):
        return False
    return True
