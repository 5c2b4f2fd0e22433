"""Method choices on the wire, straight from the registry: `{name, params}`."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from app import methods
from app.methods.base import Kind


def choice_of(kind: Kind) -> Any:
    """A `{name, params}` union over every method of a kind."""
    variants: list[Any] = [
        create_model(
            f"{method.name.title().replace('_', '')}Choice",
            __config__=ConfigDict(extra="forbid", frozen=True),
            __doc__=method.summary,
            name=(_literal(method.name), Field(description=method.summary)),
            params=(method.params, Field(default_factory=method.params, validate_default=True)),
        )
        for method in methods.ALL
        if method.kind is kind
    ]
    return Annotated[reduce(or_, variants), Field(discriminator="name")]


def _literal(value: str) -> Any:
    """The type of one string, known only when the registry is."""
    return Literal[value]
