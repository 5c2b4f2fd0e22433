"""What a version looks like outside: the JSON of an artifact, and of a head that is brought in."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.ids import ClassId, ModelId, VersionId
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import Grid
from app.schemas.base import Answer, Body, Name


class ArtifactClass(Answer):
    """One row of the head."""

    id: ClassId
    name: str


class ArtifactHead(Answer):
    """How the head reads features."""

    normalise: bool = Field(description="Whether a row of features is scaled to length 1 first.")


class ArtifactMethod(Answer):
    """What made the version."""

    name: str
    params: dict[str, object]


class Artifact(Answer):
    """`version.json` of an artifact (`docs/artifact.md`)."""

    format: Literal["palimpsest-version/1"] = "palimpsest-version/1"
    model: ModelId
    model_name: str
    task: str
    version: int
    version_id: VersionId
    created_at: datetime
    input: InputSpec
    grid: Grid
    network: NetworkSpec
    expansion: Expansion | None = Field(description="What the head reads instead of the features.")
    head: ArtifactHead
    classes: list[ArtifactClass] = Field(
        description="In the order of the head's rows; a regression has none."
    )
    method: ArtifactMethod
    digests: dict[str, str]


class HeadSpec(Body):
    """`head.json` of an import."""

    classes: list[Name] = Field(min_length=1, description="Names, in the order of the rows of `weight`.")
    normalise: bool = Field(False, description="Whether the head reads rows scaled to length 1.")
