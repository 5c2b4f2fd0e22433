"""Random changes to training images. All draws come from the generator that is passed in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Jitter:
    """How far an image moves: `shift` of its sides, `rotate` degrees, `zoom` of its size; `flip` or not."""

    shift: float
    rotate: float
    zoom: float
    flip: bool

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """(n, height, width[, colours]) uint8 to the same; what comes in from outside the image is 0."""
        if not (self.shift or self.rotate or self.zoom or self.flip):
            return images
        theta = torch.from_numpy(self._draw(len(images), images.shape[1] / images.shape[2], rng))
        pixels = images.unsqueeze(-1) if images.dim() == 3 else images
        pixels = pixels.permute(0, 3, 1, 2).float()
        grid = F.affine_grid(theta.to(images.device), list(pixels.shape), align_corners=False)
        moved = F.grid_sample(pixels, grid, align_corners=False).round_().to(torch.uint8)
        return moved.permute(0, 2, 3, 1).reshape(images.shape)

    def _draw(self, n: int, aspect: float, rng: np.random.Generator) -> np.ndarray:
        """(n, 2, 3) float32: from places in the new image to places in the old, both in [-1, 1]."""
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate, n))
        size = 1.0 / (1.0 + rng.uniform(-self.zoom, self.zoom, n))
        mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0) if self.flip else np.ones(n)
        theta = np.zeros((n, 2, 3))
        theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) * size * mirror, -np.sin(angle) * size * aspect
        theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * size * mirror / aspect, np.cos(angle) * size
        theta[:, :, 2] = rng.uniform(-2 * self.shift, 2 * self.shift, (n, 2))
        return theta.astype(np.float32)


def quarter_turns(
    images: torch.Tensor, labels: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and their turns by a quarter (by a half where they are not square), each turn a class.

    Turn t of class c has label `t * classes + c`, so the first `classes` are the images as they came.
    """
    turns = turns_of(images.shape[1:])
    step = 4 // turns
    turned = torch.cat([torch.rot90(images, t * step, (1, 2)) for t in range(turns)])
    return turned, torch.cat([labels + t * classes for t in range(turns)])


def turns_of(shape: tuple[int, ...] | torch.Size) -> int:
    """How many turns of an image of this shape have the same shape."""
    return 4 if shape[0] == shape[1] else 2
