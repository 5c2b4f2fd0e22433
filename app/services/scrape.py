"""What Prometheus reads: what this process counted, and jobs and forget requests within a second."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

import app.metrics  # noqa: F401  the counters register themselves
from app.db import clock
from app.service import Service
from app.services import forget_numbers
from app.services.brief import Brief
from app.services.jobs import DONE, State
from app.services.timings import add_histogram
from app.tables import Job

log = logging.getLogger(__name__)

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0)  # seconds


def text(service: Service) -> bytes:
    """Everything, in Prometheus' text format."""
    return generate_latest(REGISTRY) + _of_jobs(service)


def _read(service: Service) -> bytes:
    """What the database says; nothing where it is away, for this process has its own to tell then."""
    try:
        with service.db.read() as session:
            found = [
                *_states(session),
                _seconds(session, "queue", "From queued to claimed.", Job.queued_at, Job.started_at),
                _seconds(session, "run", "From claimed to closed.", Job.started_at, Job.finished_at),
                *_losses(session),
                *_bell(session),
                *forget_numbers.read(session),
            ]
    except SQLAlchemyError as error:
        log.warning("jobs not counted", extra={"error": type(error).__name__})
        return b""
    from_database = CollectorRegistry()
    from_database.register(_Given(found))
    return generate_latest(from_database)


_of_jobs = Brief(_read)


class _Given(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _states(session: Session) -> tuple[Metric, Metric]:
    in_state = GaugeMetricFamily("palimpsest_jobs_in_state", "Jobs now.", labels=("kind", "state"))
    ended = CounterMetricFamily("palimpsest_jobs", "Jobs ended.", labels=("kind", "state", "cause"))
    cause: Any = Job.error["cause"].as_string()
    query = select(Job.kind, Job.state, cause, func.count()).group_by(Job.kind, Job.state, cause)
    now: dict[tuple[str, str], int] = {}
    for kind, state, why, count in session.execute(query):
        now[kind, state] = now.get((kind, state), 0) + count
        if state in DONE:
            ended.add_metric((kind, state, why or ""), count)
    for labels, count in now.items():
        in_state.add_metric(labels, count)
    return in_state, ended


def _seconds(session: Session, name: str, help: str, since: Any, until: Any) -> Metric:
    """How long jobs took from one of their times to another, as a histogram."""
    family = HistogramMetricFamily(f"palimpsest_job_{name}_seconds", help, labels=("kind",))
    add_histogram(session, family, BUCKETS, since, until, label=Job.kind)
    return family


def _losses(session: Session) -> tuple[Metric, Metric]:
    expired, fenced = session.execute(select(func.sum(Job.expired), func.sum(Job.fenced))).one()
    return (
        CounterMetricFamily(
            "palimpsest_job_lease_expired", "Leases that the sweep took back.", float(expired or 0)
        ),
        CounterMetricFamily(
            "palimpsest_job_fenced", "Times that a worker found its lease gone.", float(fenced or 0)
        ),
    )


def _bell(session: Session) -> tuple[Metric, Metric]:
    now = clock(session)
    due = (Job.state == State.QUEUED, Job.not_before <= now)
    oldest = session.scalar(select(func.min(Job.rung_at)).where(*due))
    age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    last = session.scalar(select(func.max(Job.started_at)))
    return (
        GaugeMetricFamily(
            "palimpsest_job_unrung_seconds", "Since the oldest bell of a job that is due.", age
        ),
        GaugeMetricFamily(
            "palimpsest_worker_last_claim_timestamp_seconds",
            "When a worker last took a job.",
            last.timestamp() if last else 0.0,
        ),
    )
