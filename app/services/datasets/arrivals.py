"""A dataset arrives: its rows are checked, sealed in shards, named in tables; all of it stays, or nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import NotReady, TooFewSamples, ValidationFailed
from app.intake import parse
from app.intake.clean import Cleaner, Options, Rows
from app.intake.media import Format
from app.intake.spool import Spooled
from app.service import Caller, Service
from app.services.callers import audit
from app.services.callers.access import digester
from app.services.callers.idempotency import Once
from app.services.datasets import duplicates, shards, staging
from app.services.datasets.reports import counts_of, report_of
from app.services.erasure import entries
from app.services.models.classes import byte_order, name_key
from app.services.policies import policies
from app.tables import Dataset, Job, Shard
from app.vault import KeyObject

WRITERS = 2  # shards that are sealed at once


def accept(
    service: Service,
    caller: Caller,
    spooled: Spooled,
    format: Format,
    options: Options,
    once: Once,
    model_id: UUID | None = None,
) -> tuple[Dataset, bool]:
    """The dataset of an upload, and whether it is new; the bytes of a live one give that one.

    With a model it counts as sent for that one, whose update policy decides in the same transaction. Raises
    `ValidationFailed` for rows sent again to be forgotten that are to be learned too.
    """
    if options.for_forget and (model_id is not None or options.reconsent):
        what = "model" if model_id is not None else "reconsent"
        raise ValidationFailed("rows that are sent again to be forgotten are not learned", pointer=what)
    marks = duplicates.marks(service, caller.tenant_id, spooled.sha256, format, options)
    if found := duplicates.find(service, caller.tenant_id, marks):
        return _repeat(service, caller, found, once, model_id), False
    arrival = Arrival(service, caller, format, options)
    try:
        arrival.take(spooled)
        with duplicates.one_at_a_time(service):
            if found := duplicates.find(service, caller.tenant_id, marks):
                arrival.discard()
                return _repeat(service, caller, found, once, model_id), False
            return arrival.publish(KeyObject(digests=marks), once, model_id), True
    except BaseException:
        arrival.discard()
        raise


@dataclass
class Arrival:
    """One upload on its way into the store."""

    service: Service
    caller: Caller
    format: Format
    options: Options
    id: UUID = field(default_factory=ids.new)
    written: list[Shard] = field(default_factory=list)
    counts: dict[tuple[int, int], int] = field(default_factory=dict)  # (label, split) -> rows
    is_staged: bool = False
    cleaner: Cleaner = field(init=False)

    def __post_init__(self) -> None:
        tenant = self.caller.tenant_id
        with self.service.db.read() as session:
            erased = {} if self.options.for_forget else staging.erased(session, tenant)
        digest = digester(self.service, tenant)
        self.cleaner = Cleaner(self.options, self.service.settings.limits, digest, erased)

    def take(self, spooled: Spooled) -> None:
        """Check and store every row; nothing is visible yet."""
        waiting: deque[Future[Shard]] = deque()
        with ThreadPoolExecutor(WRITERS) as pool:
            try:
                for chunk in parse(self.format, spooled.source):
                    rows = self.cleaner.clean(chunk)
                    if self.cleaner.is_refused or not len(rows.positions):
                        continue
                    if len(waiting) > WRITERS:
                        self.written.append(waiting.popleft().result())
                    waiting.append(pool.submit(self._write, rows, tuple(self.cleaner.names)))
                    self._count(rows)
                    self._stage(rows)
            finally:
                failure = self._collect(waiting)
        if failure is not None:
            raise failure
        self._check()

    def publish(self, key: KeyObject, once: Once, model_id: UUID | None = None) -> Dataset:
        """Make the dataset visible: its key object first, then the rows that name everything."""
        self.service.vault.write_key(self.id, key)
        with self.service.db.begin() as session:
            if self.is_staged:
                entries.lock(session)  # no request about these rows comes between the look and the commit
            row = session.get(Dataset, self.id, with_for_update=True) if self.is_staged else self._row()
            if row is None or not row.arriving:
                raise NotReady("the upload took too long; send it again")
            self._fill(row)
            row.created_at = clock(session)
            row.deleted_at, row.arriving = None, False
            session.add(row)
            session.flush()
            if self.is_staged:
                staging.consult(session, self.caller.tenant_id, self.id, reconsent=self.options.reconsent)
            session.add_all(self.written)
            self._record(session)
            started = _offer(self.service, session, self.caller, row, model_id)
            once.finish(session, status=201, headers={"Location": location(self.id)}, resource_id=self.id)
        _ring(self.service, started)
        duplicates.remember(self.service, self.caller.tenant_id, self.id, key)
        return row

    def discard(self) -> None:
        """Leave nothing behind: no row, no key, no file.

        Unless the commit came through and only its answer was lost: then everything stays. Where the
        database cannot say so, the files are left to the sweep of orphans.
        """
        with self.service.db.read() as session:
            row = session.get(Dataset, self.id)
        if row is not None and not row.arriving:
            return
        if self.is_staged:
            staging.remove(self.service, self.id)
        self.service.vault.destroy(self.id)
        shards.discard(self.service, self.written)

    def _record(self, session: Session) -> None:
        """The audit of the arrival; of renewed consent with each request that had erased a person."""
        events: list[tuple[str, dict[str, UUID | str | int]]] = [("dataset.accepted", {})]
        if self.options.reconsent:
            requests = [{"forget_request": id} for id in self.cleaner.evidence] or [{}]
            events += [("dataset.reconsented", dict(request)) for request in requests]
        for action, request in events:
            audit.record(
                session,
                tenant_id=self.caller.tenant_id,
                actor=self.caller.actor,
                action=action,
                resources={"dataset": self.id, **request},
            )

    def _write(self, rows: Rows, names: tuple[str, ...]) -> Shard:
        return shards.write(
            self.service,
            tenant_id=self.caller.tenant_id,
            dataset_id=self.id,
            positions=rows.positions,
            x=rows.x,
            labels=rows.labels,
            names=names,
            split=rows.split,
            targets=rows.targets,
        )

    def _collect(self, waiting: Iterable[Future[Shard]]) -> BaseException | None:
        """Keep what was written, also beside a failure, so that it can be destroyed."""
        failure = None
        for future in waiting:
            if (error := future.exception()) is None:
                self.written.append(future.result())
            else:
                failure = error
        return failure

    def _count(self, rows: Rows) -> None:
        for label, split, count in counts_of(rows):
            self.counts[label, split] = self.counts.get((label, split), 0) + count

    def _stage(self, rows: Rows) -> None:
        for part in staging.named(rows):
            with self.service.db.begin() as session:
                if not self.is_staged:
                    row = self._row()
                    row.created_at = row.deleted_at = clock(session)
                    session.add(row)
                    session.flush()
                    self.is_staged = True
                staging.stage(session, self.caller.tenant_id, self.id, part)

    def _check(self) -> None:
        self.cleaner.finish()
        if not self.counts:
            raise TooFewSamples("there are no rows", pointer="/x")
        alike: dict[str, str] = {}
        for name in byte_order(self.cleaner.names):
            other = alike.setdefault(name_key(name), name)
            if other != name:
                raise ValidationFailed(f"labels {other!r} and {name!r} look alike", pointer="/label")

    def _row(self) -> Dataset:
        row = Dataset(
            id=self.id, tenant_id=self.caller.tenant_id, format=self.format.value, kind="rows", arriving=True
        )
        row.for_forget = self.options.for_forget
        self._fill(row)
        return row

    def _fill(self, row: Dataset) -> None:
        cleaner = self.cleaner
        row.name = self.options.name or self.format.value
        row.shape, row.dtype = list(cleaner.shape or ()), str(cleaner.dtype)
        row.rows = cleaner.total
        row.train_rows, row.eval_rows = (
            sum(n for (_, split), n in self.counts.items() if split == wanted) for wanted in (0, 1)
        )
        row.has_labels, row.has_targets = cleaner.has_labels, cleaner.has_targets
        row.classes = {
            name: {"train": self.counts.get((i, 0), 0), "eval": self.counts.get((i, 1), 0)}
            for i, name in enumerate(cleaner.names)
            if (i, 0) in self.counts or (i, 1) in self.counts
        }
        row.report = report_of(cleaner, row)


def location(dataset_id: UUID) -> str:
    """The path of a dataset."""
    return f"/v1/datasets/{ids.encode('dst', dataset_id)}"


def _repeat(service: Service, caller: Caller, found: UUID, once: Once, model_id: UUID | None) -> Dataset:
    with service.db.begin() as session:
        row = session.get_one(Dataset, found)
        started = _offer(service, session, caller, row, model_id)
        once.finish(session, status=200, headers={"Location": location(found)}, resource_id=found)
    _ring(service, started)
    return row


def _offer(
    service: Service, session: Session, caller: Caller, row: Dataset, model_id: UUID | None
) -> list[Job]:
    return policies.offer(service, session, caller, model_id, row) if model_id else []


def _ring(service: Service, started: list[Job]) -> None:
    for job in started:
        service.bell.ring(job.id, job.queue)
