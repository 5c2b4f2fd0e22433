"""What Prometheus reads: counters of this process, gauges from the database at the time of asking."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

import app.metrics  # noqa: F401  the counters register themselves
from app.db import clock
from app.service import Service
from app.tables import Job

DONE = ("succeeded", "failed", "cancelled")


def text(service: Service) -> bytes:
    """Everything, in Prometheus' text format."""
    from_database = CollectorRegistry()
    from_database.register(_Given(_jobs(service)))
    return generate_latest(REGISTRY) + generate_latest(from_database)


class _Given(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _jobs(service: Service) -> list[Metric]:
    in_state = GaugeMetricFamily("palimpsest_jobs_in_state", "Jobs now.", labels=("kind", "state"))
    total = CounterMetricFamily("palimpsest_jobs", "Jobs ended.", labels=("kind", "state", "cause"))
    unrung = GaugeMetricFamily("palimpsest_job_unrung_seconds", "Age of the oldest job that no one rang.")
    claimed = GaugeMetricFamily(
        "palimpsest_worker_last_claim_timestamp_seconds", "When a worker last took a job."
    )
    cause: Any = Job.error["cause"].as_string()
    with service.db.read() as session:
        counts = session.execute(
            select(Job.kind, Job.state, cause, func.count()).group_by(Job.kind, Job.state, cause)
        )
        living: dict[tuple[str, str], int] = {}
        for kind, state, why, count in counts:
            if state in DONE:
                total.add_metric((kind, state, why or ""), count)
            living[kind, state] = living.get((kind, state), 0) + count
        for key, count in living.items():
            in_state.add_metric(key, count)
        oldest = session.scalar(
            select(func.min(Job.queued_at)).where(Job.state == "queued", Job.rung_at.is_(None))
        )
        unrung.add_metric((), _age(clock(session), oldest))
        last = session.scalar(select(func.max(Job.started_at)))
        claimed.add_metric((), last.timestamp() if last else 0.0)
    return [in_state, total, unrung, claimed]


def _age(now: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
