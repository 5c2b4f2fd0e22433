"""The catalogue of methods on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.methods.base import Method
from app.schemas.base import Answer


class MethodRead(Answer):
    """One algorithm, as its own file declares it."""

    name: str
    kind: str = Field(description="update, forget or upgrade: the request that takes it.")
    tasks: list[str] = Field(description="Tasks of models that it serves.")
    needs: list[str] = Field(description="Parts of the data that it must be given.")
    reads: str = Field(description="inputs: rows as sent; features: rows of the model's feature map.")
    trains_network: bool = Field(description="Whether it changes the feature map.")
    summary: str
    source: str = Field(description="The paper.")
    params: dict[str, Any] = Field(description="JSON schema of its parameters, with bounds and defaults.")

    @classmethod
    def of(cls, method: Method[Any]) -> MethodRead:
        return cls(
            name=method.name,
            kind=method.kind,
            tasks=sorted(method.tasks),
            needs=sorted(method.needs),
            reads=method.reads,
            trains_network=method.trains_network,
            summary=method.summary,
            source=method.source,
            params=method.params.model_json_schema(),
        )


class MethodList(Answer):
    """Every method there is."""

    items: list[MethodRead]
