"""A multilayer perceptron for vectors and tables."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from app.methods.networks.architecture import Architecture, NetworkParams, scaled
from app.methods.networks.spec import InputSpec

Width = Annotated[int, Field(ge=2, le=4_096, strict=True)]


class Params(NetworkParams):
    hidden: tuple[Width, ...] = Field(
        (256, 128),
        min_length=1,
        max_length=8,
        description="Widths of the hidden layers, first to last; the last one is the number of features.",
    )


class Mlp(nn.Module):
    """Columns are standardised by running statistics (tables mix units); linear, norm, ReLU per layer."""

    def __init__(self, columns: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(columns, affine=False)]
        for before, after in pairwise((columns, *hidden)):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, columns) to (rows, hidden[-1]) float32."""
        features: torch.Tensor = self.layers(scaled(x))
        return features


def build(params: Params, spec: InputSpec) -> nn.Module:
    return Mlp(spec.shape[0], params.hidden)


ARCHITECTURE = Architecture(
    name="mlp",
    params=Params,
    build=build,
    width=lambda params, spec: params.hidden[-1],
    kinds=frozenset({"vector", "table"}),
    summary="A multilayer perceptron for vectors and tables.",
)
