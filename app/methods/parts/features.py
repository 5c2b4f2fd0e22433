"""The feature map: stored rows through the network, in eval mode, onto the grid.

Floating-point convolutions may differ in their last bits between machines and batch sizes; grid features
are therefore computed once per data set and stored, and everything after them is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.methods.base import Unfit
from app.methods.networks.identity import Identity, flat
from app.methods.parts.grid import Grid, quantise

BATCH = 128  # rows that go through the network at once


def embed(
    network: nn.Module,
    blocks: Iterable[NDArray[Any]],
    grid: Grid,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    on_clipped: Callable[[int], None] = lambda _: None,
) -> Iterator[NDArray[np.int16]]:
    """Grid features (b, width) of every block (b, *shape) of inputs, in order.

    `on_clipped` is told after each block how many values lay outside the grid and were clipped. Leaves the
    network in eval mode and on `device`. Raises `Unfit` where a feature is not finite.
    """
    network = network.to(device).eval()
    for block in blocks:
        features = flat(block) if isinstance(network, Identity) else _forward(network, block, device, batch)
        if not np.isfinite(features).all():
            raise Unfit("the network gives values that are not finite for some rows", "/datasets")
        rows, clipped = quantise(features, grid)
        on_clipped(clipped)
        yield rows


def _forward(
    network: nn.Module, block: NDArray[Any], device: torch.device | str, batch: int
) -> NDArray[np.float32]:
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(np.array(block[i : i + batch])).to(device)).cpu()
            for i in range(0, max(len(block), 1), batch)
        ]
        features: NDArray[np.float32] = torch.cat(parts).numpy()
    return features
