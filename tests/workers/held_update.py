"""The real update job, held at a stage."""

from __future__ import annotations

from app.services import jobs
from tests.workers import held
from workers import plan, update

STAGES = ("planned", "computed", "saved", "publishing", "published")


def run(service, claimed, report):
    """`workers.update.run` with a stop after each of its steps."""
    steps = {
        "planned": (plan, "make"),
        "computed": (update, "learn"),
        "saved": (update, "_save"),
        "publishing": (jobs, "finish"),
        "published": (update, "_publish"),
    }
    held.run(service, claimed, report, update.run, steps)
