"""The scheduler: one thread of one process sweeps. Which one, a row of the database says."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services import jobs
from app.services.backups import under_way
from app.services.callbacks.courier import Courier
from app.services.datasets import sent_again, staging
from app.services.erasure import purges
from app.services.erasure.orphans import remove_orphans
from app.services.forget import reminders
from app.services.forget import sweeps as forget_sweeps
from app.services.jobs import ACTIVE, State, Urgency
from app.services.models import retention
from app.services.policies import offers
from app.tables import Dataset, Holder, IdempotencyRecord, Job, Model, Version

log = logging.getLogger(__name__)

DUTY = "sweep"
FORGET_REQUESTS = "POST /v1/forget-requests"  # the route that makes one, and those that decide about it
RARE = 10.0  # sweeps of the file store in the life of an orphan


class Scheduler:
    """Sweeps every `sweep_seconds` while it holds the duty, until `stop`."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.owner = f"{socket.gethostname()}:{os.getpid()}-{secrets.token_hex(3)}"
        self._over = threading.Event()
        self._files_swept = time.monotonic()
        self._on_duty = False

    def run(self) -> None:
        """Sweep until `stop` is called; beside it a courier sends callbacks."""
        courier = Courier(self.service, lambda: self._on_duty)
        courier.start()
        while True:
            try:
                self._on_duty = hold(self.service, DUTY, self.owner)
                if self._on_duty:
                    self.sweep()
            except Exception:  # the edge: a sweep that failed must not be the last
                self._on_duty = False
                log.exception("sweep failed")
            if self._over.wait(self.service.settings.jobs.sweep_seconds):
                break
        courier.stop()
        release(self.service, DUTY, self.owner)

    def stop(self) -> None:
        self._over.set()

    def sweep(self) -> None:
        """Everything that is due, each on its own: one that fails holds no other up."""
        duties: list[Callable[[Service], object]] = [
            forget_sweeps.commit_ledger_objects,
            forget_sweeps.keep_dates,
            forget_sweeps.end_holds,
            forget_sweeps.purge_again,
            reminders.remind,
            jobs.sweep,
            jobs.drop_checkpoints,
            expire_answers,
            resume_purges,
            staging.sweep,
            purges.remove_left,
            sent_again.sweep,
            follow_policies,
            end_restores,
        ]
        if time.monotonic() - self._files_swept > self.service.settings.jobs.orphan_seconds / RARE:
            self._files_swept = time.monotonic()
            duties.append(remove_orphans)
        for duty in duties:
            try:
                duty(self.service)
            except Exception:
                log.exception("part of a sweep failed", extra={"duty": duty.__name__})


@contextmanager
def scheduling(service: Service) -> Iterator[Scheduler]:
    """A scheduler on a thread of this process."""
    scheduler = Scheduler(service)
    thread = threading.Thread(target=scheduler.run, name="scheduler", daemon=True)
    thread.start()
    try:
        yield scheduler
    finally:
        scheduler.stop()
        thread.join()


def hold(service: Service, duty: str, owner: str) -> bool:
    """Take or keep a duty that one process has at a time; another one's lapses after three sweeps."""
    try:
        with service.db.begin() as session:
            now = clock(session)
            until = now + timedelta(seconds=3 * service.settings.jobs.sweep_seconds)
            mine_or_lapsed = (Holder.owner == owner) | (Holder.expires_at < now)
            taken = session.execute(
                update(Holder)
                .where(Holder.name == duty, mine_or_lapsed)
                .values(owner=owner, expires_at=until)
                .returning(Holder.name)
            ).one_or_none()
            if taken is None and session.get(Holder, duty) is None:
                session.add(Holder(name=duty, owner=owner, expires_at=until))
                return True
            return taken is not None
    except IntegrityError:  # another process took it first
        return False


def release(service: Service, duty: str, owner: str) -> None:
    """Give a duty up, so that the next process need not wait."""
    with service.db.begin() as session:
        session.execute(delete(Holder).where(Holder.name == duty, Holder.owner == owner))


def expire_answers(service: Service) -> None:
    """Remove idempotency records that are past their time; a forget request keeps its own."""
    with service.db.begin() as session:
        old = clock(session) - timedelta(seconds=service.settings.idempotency.keep_seconds)
        kept = IdempotencyRecord.route.startswith(FORGET_REQUESTS)
        session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.created_at < old, ~kept))


def end_restores(service: Service) -> bool:
    """Close a restore once nothing that was erased is left of it: the service is ready then."""
    with service.db.read() as session:
        if not under_way.is_open(session):
            return False
    from app.services.backups import reconcile

    return reconcile.finish(service)


def follow_policies(service: Service) -> int:
    """Decide about datasets that wait for a model; returns how many updates that started."""
    if not offers.open_models(service):
        return 0
    from app.services.policies import policies

    return policies.sweep(service)


def resume_purges(service: Service) -> int:
    """Queue a purge for each deleted dataset and model, and for retired versions, whose own failed; returns
    how many. Each is tried again after `orphan_seconds`."""
    with service.db.begin() as session:
        recent = clock(session) - timedelta(seconds=service.settings.jobs.orphan_seconds)
        of_dataset = Job.resource_id == Dataset.id
        of_model = (Job.model_id == Model.id) & Job.resource_id.is_(None)  # not one of retired versions
        queued = [
            *(
                _purge(session, row.tenant_id, dataset_id=row.id)
                for row in _unpurged(session, Dataset, of_dataset, recent)
                if not row.arriving
            ),
            *(
                _purge(session, row.tenant_id, model_id=row.id)
                for row in _unpurged(session, Model, of_model, recent)
            ),
            *(
                retention.queue_purge(session, row, actor="scheduler")
                for row in _with_retired(session, recent)
            ),
        ]
    for job in queued:
        service.bell.ring(job.id, job.queue)
    return len(queued)


def _unpurged(
    session: Session, table: type[Dataset] | type[Model], named: ColumnElement[bool], recent: datetime
) -> Sequence[Any]:
    """Deleted rows without a purge that succeeded, is under way or is young; `named`: it is theirs."""
    carried_out = exists().where(
        Job.kind == "purge",
        named,
        Job.state.in_((State.SUCCEEDED, State.QUEUED, *ACTIVE)) | (Job.created_at > recent),
    )
    return session.scalars(select(table).where(table.deleted_at.is_not(None), ~carried_out)).all()


def _with_retired(session: Session, recent: datetime) -> Sequence[Model]:
    """Models with retired versions that no purge that is under way or young will see to."""
    retired = exists().where(
        Version.model_id == Model.id, Version.state == "retired", Version.purged_at.is_(None)
    )
    seen_to = exists().where(
        Job.kind == "purge",
        Job.model_id == Model.id,
        Job.state.in_((State.QUEUED, *ACTIVE)) | (Job.created_at > recent),
    )
    return session.scalars(select(Model).where(Model.deleted_at.is_(None), retired, ~seen_to)).all()


def _purge(
    session: Session, tenant_id: UUID, *, dataset_id: UUID | None = None, model_id: UUID | None = None
) -> Job:
    return jobs.new_job(
        session,
        tenant_id=tenant_id,
        kind="purge",
        queue="io",
        lane=None,
        urgency=Urgency.OFF_LANE,
        model_id=model_id,
        resource_id=dataset_id,
        request={"dataset": dataset_id.hex} if dataset_id else {"model": model_id.hex if model_id else None},
        actor="scheduler",
        request_id=None,
    )
