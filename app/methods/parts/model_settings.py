"""Settings of a model that its closed-form heads are functions of; fixed when the model is created."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FixedRidge(BaseModel):
    """A ridge of `2**k` times the mean variance of a feature, rounded down to a power of two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(-4, ge=-40, le=40, description="Binary logarithm of the ridge over the mean variance.")


Ridge = FixedRidge | Literal["gcv"]


class TargetGrid(BaseModel):
    """Regression targets are integers times `2**exponent`, below 2**20 of them in magnitude."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exponent: int = Field(ge=-40, le=40, description="Binary logarithm of the step between targets.")
