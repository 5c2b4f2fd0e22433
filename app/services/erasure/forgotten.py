"""The purge that follows a forget: everything that still knows the erased rows is destroyed, top to bottom.

Every step may be repeated: keys go before files, files before the rows that name them, and the requests are
closed last. All that wait are worked off as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.service import Service
from app.services import certificates
from app.services.certificates import verification
from app.services.datasets import duplicates
from app.services.erasure import batches, counts, evidence, orphans, purges, rewrites, superseded, traces
from app.services.erasure.batches import Batch
from app.services.erasure.parts import parts
from app.services.forget import lacking, states
from app.tables import Dataset, ForgetRequest

UNNAMED_SECONDS = 60.0  # longer than any call takes between its bytes and their commit
AT_ONCE = 50  # requests closed in one transaction, which holds up other writers

Tell = Callable[[float], None]


def purge(service: Service, tenant_id: UUID, tell: Tell) -> Sequence[UUID]:
    """Destroy what the tenant's requests in `purging` name, sign their certificates, complete them.

    `tell` hears the fraction done and may raise to stop. Returns the requests; none where none waited.
    """
    with service.db.read() as session:
        batch = batches.read(session, tenant_id)
        doomed = superseded.find(session, batch)
    if batch.entries:
        superseded.destroy(service, doomed, batch, _part(tell, 0.0, 0.4))
        _leave_behind(service, [one.version.id for versions in doomed.values() for one in versions])
        traces.destroy_checkpoints(service, batch.everywhere(), doomed, min(batch.entries))
        _destroy_rows(service, batch, _part(tell, 0.4, 0.8))
        orphans.remove_orphans(service, UNNAMED_SECONDS)
        traces.tidy(service)  # nothing is signed before that
        _close(service, batch, _part(tell, 0.8, 1.0))
    return batch.requests(batch.entries)


def _leave_behind(service: Service, versions: Sequence[UUID]) -> None:
    """Remove what was kept of deleted datasets for versions of which these were the last."""
    for part in parts(versions):
        for dataset_id in purges.left_behind(service, part):
            purges.remove_samples(service, dataset_id)


def _destroy_rows(service: Service, batch: Batch, tell: Tell) -> None:
    """Take the rows out of everything that stores them."""
    traces.forget_progress(service, batch.rows)
    stored = batch.stored()
    gone = {id: np.unique(rows.positions) for id, rows in stored.items()}
    for dataset_id in gone:
        service.vault.destroy(dataset_id)  # its digest, and the fingerprint of its upload
        duplicates.forget(service, dataset_id)

    def see(session: Session, taken: Mapping[UUID, NDArray[np.int64]]) -> None:
        mine = (stored[id].sequences[np.isin(stored[id].positions, at)] for id, at in taken.items())
        evidence.add(session, (id for some in mine for id in batch.requests(some.tolist())), "rows")

    rewrites.rewrite(service, gone, tell, see)
    counts.remove_samples(service, gone)
    for dataset_id in _sent_to_be_forgotten(service, batch):
        purges.purge_dataset(service, dataset_id, tell)
        purges.remove_samples(service, dataset_id)


def _sent_to_be_forgotten(service: Service, batch: Batch) -> list[UUID]:
    """Datasets that were sent again for requests of this batch and that no other one waits for; from here on
    they count as deleted."""
    if not batch.sent:
        return []
    mine = batch.requests(batch.entries)
    with service.db.begin() as session:
        needed = set(
            session.scalars(
                select(ForgetRequest.rows_id).where(
                    ForgetRequest.rows_id.in_(batch.sent),
                    ForgetRequest.id.not_in(mine),
                    ForgetRequest.state.not_in(states.ENDED),
                )
            )
        )
        rows = session.scalars(select(Dataset).where(Dataset.id.in_(batch.sent - needed))).all()
        for row in rows:
            row.deleted_at = row.deleted_at or clock(session)
    return [row.id for row in rows]


def _close(service: Service, batch: Batch, tell: Tell) -> None:
    """Sign and complete the requests, some at a time: a certificate and its request's end are one fact."""
    waiting = batch.requests(batch.entries)
    datasets = _datasets(batch)
    for at in range(0, len(waiting), AT_ONCE):
        tell(at / len(waiting))
        with service.db.begin() as session:
            held = evidence.held(session, waiting[at : at + AT_ONCE])
            closing = [one for one in held if one.state == "purging"]  # others closed in an earlier attempt
            for request in closing:
                evidence.conclude(request, datasets.get(request.id, 0))
                states.complete(session, request, lacking.unmatched(request))
            certificates.issue_all(service, session, closing)
            verification.queue(session, closing)


def _datasets(batch: Batch) -> Mapping[UUID, int]:
    """How many datasets each request took rows from."""
    found: dict[UUID, int] = {}
    for gone in batch.rows.values():
        for request_id in batch.requests(np.unique(gone.sequences).tolist()):
            found[request_id] = found.get(request_id, 0) + 1
    return found


def _part(tell: Tell, start: float, end: float) -> Tell:
    return lambda fraction: tell(start + (end - start) * fraction)
