"""What goes into a model: the shape of its inputs and the network that reads them."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class InputSpec(BaseModel):
    """The form of one row. Images are uint8, height x width or height x width x channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["vector", "image", "table"]
    shape: tuple[Annotated[int, Field(ge=1, le=65_536, strict=True)], ...] = Field(min_length=1, max_length=3)

    @model_validator(mode="after")
    def _shape_fits_kind(self) -> InputSpec:
        if self.kind == "image" and not (
            len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[2] in (1, 3))
        ):
            raise ValueError("an image has shape [height, width] or [height, width, 1 or 3]")
        if self.kind != "image" and len(self.shape) != 1:
            raise ValueError(f"a {self.kind} has shape [columns]")
        if prod(self.shape) > 65_536 * 16:
            raise ValueError("more than 1,048,576 values a row")
        return self

    @property
    def dtype(self) -> str:
        """How rows of this kind are stored: NumPy's name of the type."""
        return "uint8" if self.kind == "image" else "float32"


class NetworkSpec(BaseModel):
    """A network by name; its parameters are checked by that network's own `Params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
