"""Settings of a model that closed-form heads are functions of: expansion, ridge, grid of the targets.

They are given when a model is created and never change: a head of one expansion says nothing of another.
"""

from __future__ import annotations

from typing import Any, TypedDict

from app.errors import ValidationFailed
from app.methods import networks
from app.methods.base import Memory, Task
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.learning import SOLVE
from app.methods.parts.model_settings import Ridge, TargetGrid
from app.schemas.models import RIDGE, ModelCreate
from app.tables import Model


class Settings(TypedDict):
    """As a `Snapshot` takes them."""

    expansion: Expansion | None
    ridge: Ridge
    target: TargetGrid | None


def of_model(model: Model) -> Settings:
    """The settings that every version of a model has."""
    return {
        "expansion": None if model.expansion is None else Expansion.model_validate(model.expansion),
        "ridge": RIDGE.validate_python(model.ridge),
        "target": None if model.target is None else TargetGrid.model_validate(model.target),
    }


def columns(body: ModelCreate) -> dict[str, Any]:
    """The settings as columns of a new model."""
    sent = body.model_dump(mode="json", include={"expansion", "ridge", "input"})
    return {"expansion": sent["expansion"], "ridge": sent["ridge"], "target": sent["input"]["target"]}


def check(body: ModelCreate, memory: int) -> None:
    """Raise `ValidationFailed` for settings that do not fit the task, or one another, or `memory` bytes."""
    if (body.task is Task.REGRESSION) != (body.input.target is not None):
        what = "needs" if body.task is Task.REGRESSION else "has no use for"
        raise ValidationFailed(
            f"a model of task {body.task.value} {what} a grid of targets", pointer="/input/target"
        )
    if body.expansion is not None:
        check_memory(SOLVE, body.expansion.width, memory, pointer="/expansion/width")


def width(model: Model) -> int:
    """Columns that the statistics of a model have."""
    if model.expansion is not None:
        return int(model.expansion["width"])
    return networks.width(NetworkSpec(**model.network), InputSpec(**model.input))


def check_memory(needed: Memory, width: int, memory: int, pointer: str) -> None:
    """Raise `ValidationFailed` where a head of this width, of whatever classes, needs more than `memory`.

    What the classes take besides is known, and refused, when the job begins.
    """
    if short := needed.shortage(width, 0, memory):
        raise ValidationFailed(short, pointer=pointer)
