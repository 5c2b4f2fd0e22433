"""No network: the inputs are the features. For users who bring embeddings."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.methods.networks.architecture import Architecture, NetworkParams
from app.methods.networks.spec import InputSpec


class Params(NetworkParams):
    """None."""


class Identity(nn.Module):
    """The stored values in one row each; grey levels become 0 to 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, *shape) to (rows, columns) float32."""
        return torch.from_numpy(flat(x.cpu().numpy())).to(x.device)


def flat(rows: NDArray[np.generic]) -> NDArray[np.float32]:
    """(rows, *shape) to (rows, columns): on the host, where dividing by 255 is correctly rounded."""
    columns = rows.reshape(len(rows), -1)
    return columns / np.float32(255) if columns.dtype == np.uint8 else columns.astype(np.float32, copy=False)


ARCHITECTURE = Architecture(
    name="identity",
    params=Params,
    build=lambda params, spec: Identity(),
    width=lambda params, spec: prod(spec.shape),
    kinds=frozenset({"vector", "image", "table"}),
    summary="The inputs are the features; there is nothing to train.",
)
