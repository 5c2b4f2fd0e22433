"""What the parts of the benchmark of the service share."""

from __future__ import annotations

from benchmarks.common import Bar, Row
from benchmarks.served import Served


def row(on: Served, measured: str, value: float, unit: str = "seconds", note: str = "") -> Row:
    """A line of the table."""
    return {"measured": measured, "stack": on.stack, "value": value, "unit": unit, "note": note}


def at_most(name: str, value: float, bar: float) -> Bar:
    return Bar(name, value, bar, value <= bar)
