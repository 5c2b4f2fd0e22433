"""A request for an update: new-class data for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from app.ids import DatasetId
from app.methods.base import Kind
from app.schemas.base import Body, VersionNumber
from app.schemas.choices import choice_of

ALIAS = r"^[a-z][a-z0-9-]{0,62}$"


def _settable(name: str) -> str:
    if name == "latest":
        raise ValueError("latest is computed and cannot be set")
    return name


AliasName = Annotated[str, StringConstraints(pattern=ALIAS), AfterValidator(_settable)]
if TYPE_CHECKING:
    UpdateMethod = Any
else:
    UpdateMethod = choice_of(Kind.UPDATE)


class UpdateCreate(Body):
    """Teach a model: datasets with labelled rows, or rows with targets, and the method that learns them."""

    datasets: list[DatasetId] = Field(
        max_length=100,
        description="Whose train rows are learned. None: another head is made from what the base knows, by a "
        "method that needs no rows for it.",
    )
    method: UpdateMethod
    base: VersionNumber | None = Field(
        None, description="Version to build on; the newest untainted one where it is left out."
    )
    alias: AliasName | None = Field(
        None, description="Alias that moves to the new version if the model's gates pass."
    )
    evaluation: DatasetId | None = Field(
        None,
        description="Dataset to measure on; the model's, or the rows of split eval, where it is left out.",
    )
    on_conflict: Literal["reject", "extend"] = Field(
        "reject", description="What to do with rows of classes that the model has: refuse, or add to them."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of everything random in the method.")

    @field_validator("datasets")
    @classmethod
    def _each_once(cls, value: list[UUID]) -> list[UUID]:
        if len(set(value)) != len(value):
            raise ValueError("a dataset is named twice")
        return value
