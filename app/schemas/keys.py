"""API keys on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.ids import KeyId
from app.schemas.base import Answer, Body, Name

Scope = Literal["read", "ingest", "train", "forget:create", "forget:approve", "promote", "search", "admin"]
YEARS = 10 * 366 * 86_400


class KeyCreate(Body):
    """An API key to make."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "pipeline", "scopes": ["read", "ingest", "train"]}}
    )

    name: Annotated[Name, Field(description="For people.")]
    scopes: list[Scope] = Field(
        min_length=1, max_length=8, description="What the key may do; `admin` is all."
    )
    expires_in_seconds: int | None = Field(None, ge=1, le=YEARS, description="Lives as long; null: no end.")


class KeyRead(Answer):
    """An API key, without its secret."""

    id: KeyId
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class KeyCreated(KeyRead):
    """A fresh API key."""

    token: str | None = Field(
        description="`Authorization: Bearer <token>`. Shown once; null where the answer is replayed."
    )
