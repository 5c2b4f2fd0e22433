"""The real forget job, held at a stage."""

from __future__ import annotations

from app.services import jobs
from tests.workers import held
from workers import forget, forget_entries, replay

STAGES = ("taken", "computed", "saved", "publishing", "published")


def run(service, claimed, report):
    """`workers.forget.run` with a stop after each of its steps."""
    steps = {
        "taken": (forget_entries, "take"),
        "computed": (replay, "remake"),
        "saved": (forget, "_save"),
        "publishing": (jobs, "finish"),
        "published": (forget, "_publish"),
    }
    held.run(service, claimed, report, forget.run, steps)
