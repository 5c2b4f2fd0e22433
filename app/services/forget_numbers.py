"""What Prometheus reads of forget requests, of versions that know erased rows, and of callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.services.erasure import ledger
from app.services.forget import states
from app.services.timings import add_histogram
from app.tables import (
    Delivery,
    ErasedRow,
    ForgetRequest,
    LedgerEntry,
    LedgerTarget,
    Model,
    Version,
    VersionClass,
    VersionDataset,
)

DAY = 86_400.0
BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 6 * 3_600.0, DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY)
OUTCOMES = ("delivered", "failed")


def read(session: Session) -> Iterator[Metric]:
    """All of it, as the database says now."""
    yield from _requests(session)
    yield _completion(session)
    yield GaugeMetricFamily(
        "palimpsest_versions_tainted",
        "Versions that can be read and know rows that were erased.",
        float(len(ledger.tainted(session, _suspects(session)))),
    )
    yield from _callbacks(session)


def _requests(session: Session) -> Iterator[Metric]:
    now = clock(session)
    still_open = ForgetRequest.state.not_in(states.ENDED)
    count, oldest = session.execute(
        select(func.count(), func.min(ForgetRequest.created_at)).where(still_open)
    ).one()
    late = session.scalar(select(func.count()).where(still_open, ForgetRequest.due_at < now))
    age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    yield GaugeMetricFamily("palimpsest_forget_open", "Forget requests that are not done.", float(count))
    yield GaugeMetricFamily(
        "palimpsest_forget_oldest_age_seconds", "Since the receipt of the oldest one that is not done.", age
    )
    yield GaugeMetricFamily(
        "palimpsest_forget_overdue", "Those past their due date, on hold too.", float(late or 0)
    )


def _completion(session: Session) -> Metric:
    family = HistogramMetricFamily("palimpsest_forget_completion_seconds", "From receipt to completion.")
    add_histogram(
        session,
        family,
        BOUNDS,
        ForgetRequest.created_at,
        ForgetRequest.finished_at,
        ForgetRequest.state.in_(("completed", "completed-with-exceptions")),
    )
    return family


def _suspects(session: Session) -> set[UUID]:
    """Versions that can be read and may be tainted: each older than an entry, or the location of its rows,
    about one of its datasets or classes. A version stays one only until it is replaced, so they are few."""
    readable = select(Version.id).join(Model, Model.id == Version.model_id)
    readable = readable.where(Version.state == "ready", Model.deleted_at.is_(None))
    by_row = exists().where(
        VersionDataset.version_id == Version.id,
        ErasedRow.dataset_id == VersionDataset.dataset_id,
        LedgerEntry.sequence == ErasedRow.sequence,
        ledger.entered_since(Version.ledger_sequence),
    )
    named = session.scalars(select(LedgerTarget.target).where(LedgerTarget.target.startswith(ledger.CLASS)))
    classes = {UUID(hex=target.removeprefix(ledger.CLASS)) for target in named}
    found = set(session.scalars(readable.where(by_row)))
    if classes:
        by_class = exists().where(
            VersionClass.version_id == Version.id, VersionClass.class_id.in_(sorted(classes))
        )
        found.update(session.scalars(readable.where(by_class)))
    return found


def _callbacks(session: Session) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "palimpsest_webhook_deliveries", "Messages to callbacks, by what became of them.", labels=("outcome",)
    )
    counts = dict.fromkeys(OUTCOMES, 0)
    query = select(Delivery.state, func.count()).where(Delivery.state.in_(OUTCOMES)).group_by(Delivery.state)
    counts.update({state: count for state, count in session.execute(query)})
    for outcome, count in counts.items():
        ended.add_metric((outcome,), count)
    oldest = session.scalar(select(func.min(Delivery.created_at)).where(Delivery.state == "pending"))
    lag = 0.0 if oldest is None else max(0.0, (clock(session) - oldest).total_seconds())
    yield ended
    yield GaugeMetricFamily(
        "palimpsest_webhook_lag_seconds", "Age of the oldest message that is not delivered.", lag
    )
