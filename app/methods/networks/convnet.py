"""A small convolutional network for images, quick on a CPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from app.methods.networks.architecture import Architecture, NetworkParams, scaled
from app.methods.networks.spec import InputSpec

Channels = Annotated[int, Field(ge=4, le=1_024)]


class Params(NetworkParams):
    channels: tuple[Channels, ...] = Field(
        (32, 64, 128, 256),
        min_length=1,
        max_length=8,
        description="Channels of the layers, first to last; the last one is the number of features.",
    )


class ConvNet(nn.Module):
    """3x3 convolution, norm, ReLU per layer; then the mean over what is left of the image.

    The first layer keeps the resolution of small images, every other halves it down to two pixels. Batch
    norm is a fixed affine map of each row in eval mode, so features do not depend on the batch.
    """

    def __init__(self, side: int, colours: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise((colours, *channels))):
            stride = 2 if side > (16 if i == 0 else 2) else 1
            side = -(-side // stride)
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, height, width[, colours]) uint8 to (rows, channels[-1]) float32."""
        if x.dim() == 3:
            x = x.unsqueeze(-1)
        pixels = scaled(x).permute(0, 3, 1, 2)  # NHWC in memory already: channels_last
        features: torch.Tensor = self.layers(pixels).mean(dim=(2, 3))
        return features


def build(params: Params, spec: InputSpec) -> nn.Module:
    colours = spec.shape[2] if len(spec.shape) == 3 else 1
    return ConvNet(min(spec.shape[:2]), colours, params.channels)


ARCHITECTURE = Architecture(
    name="convnet",
    params=Params,
    build=build,
    width=lambda params, spec: params.channels[-1],
    kinds=frozenset({"image"}),
    summary="A small convolutional network for images, quick on a CPU.",
)
