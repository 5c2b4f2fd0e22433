"""What a network declares: its parameters, how it is built, and how many features it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from app.methods.networks.spec import InputSpec


class NetworkParams(BaseModel):
    """Parameters of a network: every field has a bound, a default and a sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=NetworkParams)


@dataclass(frozen=True)
class Architecture(Generic[P]):
    """One kind of network. Its module takes stored rows (rows, *shape), uint8 images or float32 vectors,
    and gives features (rows, width) float32; scaling of the inputs is part of it."""

    name: str
    params: type[P]
    build: Callable[[P, InputSpec], nn.Module]
    width: Callable[[P, InputSpec], int]
    kinds: frozenset[str]  # of inputs that it can read
    summary: str  # one sentence that users see


def scaled(x: torch.Tensor) -> torch.Tensor:
    """Stored rows as float32: grey levels become 0 to 1, other values stay."""
    return x.float() / 255.0 if x.dtype == torch.uint8 else x.float()
