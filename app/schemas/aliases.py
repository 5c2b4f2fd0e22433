"""Aliases on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from app.ids import VersionId
from app.schemas.base import Answer, Body, Text, VersionNumber
from app.tables import Alias, AliasMove

if TYPE_CHECKING:
    from app.tables import Version


Reason = Annotated[Text, Field(min_length=1, max_length=500, description="Why it moves.")]


class AliasPut(Body):
    """Where an alias shall point."""

    version: VersionNumber = Field(description="Number of a version.")
    reason: Reason
    protected: bool | None = Field(
        None, description="Whether only scope promote may move it; stays as it is where it is left out."
    )


class Rollback(Body):
    """Back to the version before."""

    reason: Reason


class AliasRead(Answer):
    """A movable name for a version."""

    name: str
    version: int
    version_id: VersionId
    serves: int | None = Field(
        description="The version that answers: another one while its own has erased rows and the model's "
        "`on_taint` says so; null while it is suspended."
    )
    protected: bool
    computed: bool = Field(description="True for `latest`, which cannot be set.")
    revision: int

    @classmethod
    def of(cls, row: Alias, number: int, serves: int | None) -> AliasRead:
        return cls(
            name=row.name,
            version=number,
            version_id=row.version_id,
            serves=serves,
            protected=row.protected,
            computed=False,
            revision=row.revision,
        )

    @classmethod
    def latest(cls, version: Version, serves: int | None) -> AliasRead:
        return cls(
            name="latest",
            version=version.number,
            version_id=version.id,
            serves=serves,
            protected=True,
            computed=True,
            revision=version.number,
        )


class AliasMoveRead(Answer):
    """One move; `version` is null where the alias was removed."""

    name: str
    version: int | None
    version_id: VersionId | None
    reason: str
    actor: str
    created_at: datetime

    @classmethod
    def of(cls, row: AliasMove, number: int | None) -> AliasMoveRead:
        return cls(
            name=row.name,
            version=number,
            version_id=row.version_id,
            reason=row.reason,
            actor=row.actor,
            created_at=row.created_at,
        )


class AliasList(Answer):
    items: list[AliasRead]


class AliasHistory(Answer):
    items: list[AliasMoveRead]
