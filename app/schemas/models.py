"""Models on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from app.ids import ClassId, DatasetId, ModelId, UploadId
from app.methods.base import Task
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import Grid
from app.methods.parts.model_settings import FixedRidge, Ridge, TargetGrid
from app.schemas.base import Answer, Body, Name
from app.schemas.policies import UpdatePolicy, UpdatePolicyRead
from app.tables import Model

GRID: TypeAdapter[Grid] = TypeAdapter(Grid)
RIDGE: TypeAdapter[Ridge] = TypeAdapter(Ridge)
Share = Annotated[float, Field(ge=0, le=1)]


class ModelInput(InputSpec):
    """The form of one row, and the fixed-point grid that its features are put on."""

    grid: Grid = Field(
        "normalised",
        description="normalised: rows of length one; {exponent}: integers times 2**exponent.",
    )
    target: TargetGrid | None = Field(
        None, description="The grid of the targets: of a model of task regression, which needs it."
    )


class ModelNetwork(NetworkSpec):
    """The network that turns rows into features."""

    weights: UploadId | None = Field(None, description="An upload with this network's weights.")


class Gates(Body):
    """What a version must reach before a job moves an alias to it."""

    min_old: Share | None = Field(
        None, description="Least accuracy on classes that the version which the alias names knows."
    )
    min_new: Share | None = Field(None, description="Least accuracy on the others.")
    max_forgetting: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="Largest mean loss of accuracy on old classes."
    )


class ModelChange(Body):
    """What may be changed of a model; a field that is left out stays."""

    evaluation: DatasetId | None = Field(None, description="Dataset that every version is measured on.")
    gates: Gates = Field(default_factory=Gates)
    min_centroid_rows: int = Field(
        5, ge=1, le=1_000_000, description="Classes of fewer rows show no centroid, except to scope admin."
    )
    keep_versions: int = Field(
        5,
        ge=1,
        le=1_000,
        description="Newest versions that stay usable, beside those that an alias names; older ones are "
        "retired when a version is published, and what they stored is destroyed.",
    )
    on_taint: Literal["serve-until-replaced", "fall-back", "suspend"] = Field(
        "serve-until-replaced",
        description="What an alias answers while its version has erased rows. serve-until-replaced: that "
        "version, until the forget request is due, then as fall-back; fall-back: the newest older version "
        "without them; suspend: 409 with Retry-After.",
    )
    update_policy: UpdatePolicy | None = Field(
        None, description="When and how the model learns datasets that are sent for it by themselves."
    )


class ModelCreate(ModelChange):
    """A new model."""

    name: Name
    task: Annotated[Task, Field(strict=False)]
    input: ModelInput
    network: ModelNetwork = Field(default_factory=lambda: ModelNetwork(name="identity"))
    expansion: Expansion | None = Field(
        None,
        description="Random expansion of the features that closed-form heads read (`docs/exact-heads.md`); "
        "never changed.",
    )
    ridge: Ridge = Field(
        default_factory=FixedRidge,
        description="Of closed-form heads: {k}, or gcv to choose k again for every version; never changed.",
    )


class ModelRead(Answer):
    """A named lineage of versions."""

    id: ModelId
    name: str
    task: str
    input: ModelInput
    network: ModelNetwork
    expansion: Expansion | None
    ridge: Ridge
    evaluation: DatasetId | None
    gates: Gates
    min_centroid_rows: int
    keep_versions: int
    on_taint: str
    update_policy: UpdatePolicyRead | None
    revision: int
    created_at: datetime

    @classmethod
    def of(cls, row: Model) -> ModelRead:
        return cls(
            id=row.id,
            name=row.name,
            task=row.task,
            input=ModelInput(**row.input, grid=GRID.validate_python(row.grid), target=row.target),
            network=ModelNetwork(**row.network, weights=row.weights_id),
            expansion=row.expansion,
            ridge=RIDGE.validate_python(row.ridge),
            evaluation=row.evaluation_id,
            gates=Gates(**row.gates),
            min_centroid_rows=row.min_centroid_rows,
            keep_versions=row.keep_versions,
            on_taint=row.on_taint,
            update_policy=_policy(row),
            revision=row.revision,
            created_at=row.created_at,
        )


def _policy(row: Model) -> UpdatePolicyRead | None:
    if row.update_policy is None:
        return None
    return UpdatePolicyRead.model_validate(
        {**row.update_policy, "key": row.policy_key_id, "set_at": row.policy_set_at}
    )


class ClassRead(Answer):
    """A class of a model: its id never changes its meaning."""

    id: ClassId
    name: str
    retired: bool = Field(description="Never predicted any more; the name stays reserved.")
    versions: list[int] = Field(description="Numbers of the versions that know it.")
    created_at: datetime


class ClassList(Answer):
    """Every class of a model, by creation."""

    items: list[ClassRead]
