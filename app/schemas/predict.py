"""Predictions on the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from app.ids import ClassId, ModelId
from app.schemas.base import Answer, Body, VersionNumber

AliasOrLatest = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
TopK = Annotated[int, Field(ge=1, le=1_000)]


class PredictOptions(Body):
    """Which version answers, and how many classes it names."""

    alias: AliasOrLatest | None = Field(None, description="Alias to ask; `latest` where nothing is named.")
    version: VersionNumber | None = Field(None, description="Version to ask, instead of an alias.")
    top_k: TopK = Field(1, description="How many classes to name for each row, best first.")

    @model_validator(mode="after")
    def _names_one(self) -> PredictOptions:
        if self.alias is not None and self.version is not None:
            raise ValueError("name an alias or a version, not both")
        return self


class PredictCreate(PredictOptions):
    """Rows to classify."""

    inputs: list[Any] = Field(
        description="Rows, each as nested lists of the model's input shape: numbers, or 0 to 255 for images.",
        examples=[[[0.1, 0.9], [0.8, 0.2]]],
    )


class ClassScore(Answer):
    """A class and what the head gives it."""

    label: str
    class_id: ClassId
    score: float = Field(description="Of the linear head; larger is better, not a probability.")


class Prediction(ClassScore):
    """The best class of one row."""

    top_k: list[ClassScore] | None = Field(
        None, description="The best classes, best first, where more than one was asked for."
    )


class Value(Answer):
    """What a regression predicts for one row."""

    value: float = Field(description="In the unit of the targets.")


class PredictRead(Answer):
    """The predictions, and which version made them."""

    model: ModelId
    version: int
    alias: str | None = Field(description="The alias that was asked; null where a version was named.")
    instead_of: int | None = Field(
        description="The version that the alias names, where it is damaged and another one answered."
    )
    class_map_digest: str
    predictions: list[Prediction | Value] = Field(description="One for each row, in order.")
