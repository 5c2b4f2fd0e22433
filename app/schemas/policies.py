"""The update policy of a model on the wire, and the history that it writes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.ids import DatasetId, EventId, JobId, KeyId
from app.schemas.base import Answer, Body
from app.schemas.updates import AliasName, UpdateMethod

YEAR = 31_536_000

Event = Literal[
    "waited",
    "started",
    "joined",
    "refused",
    "failed",
    "published",
    "promoted",
    "held-back",
    "alias-moved",
    "alias-removed",
]


class UpdatePolicy(Body):
    """When a model learns the datasets that were sent for it, how, and which alias follows."""

    when: Literal["manual", "on_dataset", "schedule"] = Field(
        description="manual: never by itself. on_dataset: as soon as enough rows wait, or the "
        "first dataset has waited long enough. schedule: at every `max_wait_seconds`, whatever waits."
    )
    min_rows: int | None = Field(
        None, ge=1, le=10_000_000, description="Rows that start an update; of on_dataset, default 1."
    )
    max_wait_seconds: int | None = Field(
        None,
        ge=1,
        le=YEAR,
        description="Longest wait of a dataset; of schedule, which needs it, its period. Either ends with a "
        "sweep of the service, 15 s apart, so a shorter one is honoured at the next sweep.",
    )
    method: UpdateMethod | None = Field(None, description="What learns them; needed unless when is manual.")
    on_conflict: Literal["reject", "extend"] = Field(
        "reject", description="What to do with rows of classes that the model has: refuse, or add to them."
    )
    promote: Literal["never", "if_gates_pass"] = Field(
        "never", description="Whether `alias` moves to a version that this policy made."
    )
    alias: AliasName | None = Field(None, description="An alias that exists; of if_gates_pass.")


class MethodChosen(Answer):
    """A method and its parameters."""

    name: str
    params: dict[str, Any]


class UpdatePolicyRead(Answer):
    """An update policy and the API key whose rights it has."""

    when: str
    min_rows: int | None
    max_wait_seconds: int | None
    method: MethodChosen | None
    on_conflict: str
    promote: str
    alias: str | None
    key: KeyId = Field(description="The API key that set it; its jobs act as this one.")
    set_at: datetime


class HistoryRead(Answer):
    """One line of a model's history: a decision of its update policy, or a move of an alias."""

    id: EventId
    event: str = Field(
        description="waited, started, joined, refused, failed, published, promoted or held-back: decisions. "
        "alias-moved or alias-removed: what became of an alias, whoever moved it."
    )
    reason: str
    code: str | None = Field(None, description="Of the problem, where there is one.")
    actor: str
    datasets: list[DatasetId] = Field(default_factory=list)
    job: JobId | None = None
    version: int | None = None
    alias: str | None = None
    gates: list[dict[str, Any]] = Field(default_factory=list, description="What each gate that is set said.")
    created_at: datetime
