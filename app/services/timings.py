"""Seconds between two times of a row, and how they are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client.core import HistogramMetricFamily
from sqlalchemy import ColumnElement, Float, case, cast, extract, func, select
from sqlalchemy.orm import Session


def between(session: Session, since: Any, until: Any) -> ColumnElement[float]:
    """Seconds from one column of times to another."""
    if session.get_bind().dialect.name == "sqlite":
        days = func.julianday(until, type_=Float) - func.julianday(since, type_=Float)
        return days * 86_400.0
    return cast(extract("epoch", until - since), Float)


def add_histogram(
    session: Session,
    family: HistogramMetricFamily,
    bounds: Sequence[float],
    since: Any,
    until: Any,
    *where: ColumnElement[bool],
    label: Any = None,
) -> None:
    """Count rows by how long they took from one of their times to another, for each value of `label`."""
    took = between(session, since, until)
    within = [func.sum(case((took <= bound, 1), else_=0)) for bound in bounds]
    labels = [] if label is None else [label]
    query = select(func.count(), func.sum(took), *within, *labels).where(until >= since, *where)
    for count, total, *rest in session.execute(query.group_by(*labels)):
        counts = [float(n or 0) for n in rest[: len(bounds)]]
        buckets = [(str(bound), n) for bound, n in zip(bounds, counts, strict=True)]
        family.add_metric(rest[len(bounds) :], [*buckets, ("+Inf", float(count))], float(total or 0))
