"""No network: the inputs are the features. For users who bring embeddings."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.methods.networks.architecture import Architecture, NetworkParams


class Params(NetworkParams):
    """None."""


class Identity(nn.Module):
    """The stored values in one row each; grey levels become 0 to 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, *shape) to (rows, columns) float32."""
        return torch.from_numpy(flat(x.cpu().numpy())).to(x.device)


def flat(rows: NDArray[Any]) -> NDArray[np.float32]:
    """(rows, *shape) to (rows, columns): on the host, where dividing by 255 is correctly rounded."""
    columns = rows.reshape(len(rows), -1)
    values: NDArray[np.float32] = columns.astype(np.float32, copy=False)
    return values / np.float32(255) if columns.dtype == np.uint8 else values


ARCHITECTURE = Architecture(
    name="identity",
    params=Params,
    build=lambda params, spec: Identity(),
    width=lambda params, spec: prod(spec.shape),
    kinds=frozenset({"vector", "image", "table"}),
    summary="The inputs are the features; there is nothing to train.",
)
