"""Messages to callbacks on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.ids import DeliveryId, ForgetId
from app.schemas.base import Answer

STATES = Literal["pending", "delivered", "failed"]


class DeliveryRead(Answer):
    """One message and what became of it."""

    id: DeliveryId = Field(description="The `webhook-id` of every attempt.")
    request: ForgetId = Field(validation_alias="request_id")
    event: str
    state: STATES
    attempts: int
    created_at: datetime
    next_at: datetime | None = Field(description="When it is tried again.")
    delivered_at: datetime | None
    last_status: int | None = Field(description="What the receiver answered last.")
    last_error: str | None
    replay_of: DeliveryId | None


class DeliveryList(Answer):
    """Messages of one request, the oldest first."""

    items: list[DeliveryRead]
