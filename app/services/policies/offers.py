"""Datasets that were sent for a model: which wait for an update, and how many rows that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from app.service import Service
from app.services.erasure import ledger
from app.services.jobs.rows import DONE
from app.tables import Dataset, ErasedRow, ForgetRequest, Job, LedgerEntry, Model, Offer

WAITING, STARTED, LEARNED, REFUSED = "waiting", "started", "learned", "refused"
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)  # after jobs that failed on a dataset


@dataclass(frozen=True)
class Waiting:
    """An offered dataset that no update has learned, and its rows that one may learn now."""

    offer: Offer
    dataset: Dataset
    rows: int
    due: datetime  # it is not tried again before

    @property
    def id(self) -> UUID:
        return self.dataset.id


def take(session: Session, model: Model, dataset: Dataset, now: datetime) -> None:
    """A dataset was sent for the model; one that was refused before waits again."""
    row = session.get(Offer, (model.id, dataset.id))
    if row is None:
        row = Offer(model_id=model.id, dataset_id=dataset.id, tenant_id=model.tenant_id)
        session.add(row)
    elif row.state in (WAITING, STARTED):
        return
    row.offered_at, row.state, row.tries, row.job_id = now, WAITING, 0, None
    session.flush()


def waiting(session: Session, model: Model) -> list[Waiting]:
    """What waits for the model, the oldest first. Rows that a forget request has named do not count, alone or
    by their class; which split they are of only the shards say, so eval rows are taken to be named first:
    that keeps none back."""
    rows = session.execute(
        select(Offer, Dataset, Job.finished_at)
        .join(Dataset, Dataset.id == Offer.dataset_id)
        .outerjoin(Job, Job.id == Offer.job_id)
        .where(Offer.model_id == model.id, Offer.state == WAITING)
        .order_by(Offer.offered_at, Offer.dataset_id)
        .execution_options(populate_existing=True)
    ).all()
    gone = _gone(session, model, [dataset.id for _, dataset, _ in rows])
    out = ledger.classes_out(session, model.id) if rows else {}
    return [
        Waiting(
            offer,
            dataset,
            _rows(dataset, gone[dataset.id], out),
            (failed_at or offer.offered_at) + pause(offer.tries),
        )
        for offer, dataset, failed_at in rows
    ]


def _rows(dataset: Dataset, gone: int, out: Iterable[str]) -> int:
    """Train rows that an update may learn; a row that is named by itself and by its class counts off once or
    twice, and never makes less than none."""
    of_classes = sum(int(dataset.classes[name]["train"]) for name in out if name in dataset.classes)
    return max(0, dataset.train_rows - of_classes - max(0, gone - dataset.eval_rows))


def pause(tries: int) -> timedelta:
    """How long a dataset rests after that many jobs have failed on it."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 4 ** (min(tries, 9) - 1)) if tries else timedelta()


def start(offers: Iterable[Offer], job_id: UUID) -> None:
    """A job is to learn these."""
    for offer in offers:
        offer.state, offer.job_id, offer.tries = STARTED, job_id, offer.tries + 1


def of_job(session: Session, job_id: UUID) -> Sequence[Offer]:
    """What a job was to learn and did not."""
    return session.scalars(select(Offer).where(Offer.job_id == job_id, Offer.state == STARTED)).all()


def retried(session: Session, old: UUID, job_id: UUID) -> None:
    """A job does again what an older one was to do: what that did not learn is this one's now. The caller
    holds the lock of the model's row."""
    session.execute(
        update(Offer)
        .where(Offer.job_id == old, Offer.state != LEARNED)
        .values(state=STARTED, job_id=job_id, tries=Offer.tries + 1)
    )


def learned(session: Session, model_id: UUID, datasets: Iterable[UUID]) -> None:
    """A version has learned these, whoever asked for it."""
    mine = (Offer.model_id == model_id, Offer.dataset_id.in_(list(datasets)))
    session.execute(update(Offer).where(*mine).values(state=LEARNED))


def open_models(service: Service) -> list[tuple[UUID, UUID]]:
    """(tenant, model) where a dataset waits for a policy, or a job ended without learning what it was to."""
    ended = exists().where(Job.id == Offer.job_id, Job.state.in_(DONE))
    waits = (Offer.state == WAITING) & Model.update_policy.is_not(None)
    with service.db.read() as session:
        rows = session.execute(
            select(Model.tenant_id, Model.id)
            .join(Offer, Offer.model_id == Model.id)
            .where(Model.deleted_at.is_(None), or_(waits, (Offer.state == STARTED) & ended))
            .distinct()
        )
        return [(tenant_id, model_id) for tenant_id, model_id in rows]


def ended_jobs(session: Session, model_id: UUID) -> Sequence[Job]:
    """Jobs that ended without learning what was offered."""
    left = exists().where(Offer.job_id == Job.id, Offer.state == STARTED)
    query = select(Job).where(Job.model_id == model_id, Job.state.in_(DONE), left)
    return session.scalars(query.order_by(Job.created_at, Job.id)).all()


def remove(session: Session, model_id: UUID) -> None:
    """Forget what was offered to a deleted model."""
    session.execute(delete(Offer).where(Offer.model_id == model_id))


def _gone(session: Session, model: Model, datasets: Iterable[UUID]) -> dict[UUID, int]:
    """Rows that requests have named and that are still counted: restricted, or erased and not yet purged."""
    wanted = list(datasets)
    purged = (
        select(ErasedRow.dataset_id, ErasedRow.position)
        .join(LedgerEntry, LedgerEntry.sequence == ErasedRow.sequence)
        .join(ForgetRequest, ForgetRequest.id == LedgerEntry.request_id)
        .where(ErasedRow.dataset_id.in_(wanted), ForgetRequest.state.startswith("completed"))
    )
    gone: dict[UUID, set[int]] = {}
    for dataset_id, position in session.execute(purged.where(LedgerEntry.models.is_(None))):
        gone.setdefault(dataset_id, set()).add(position)
    named = ledger.unusable(session, wanted, model.id)
    return {id: len(positions - gone.get(id, set())) for id, positions in named.items()}
