"""Second moments of FeTrIL's pseudo-features, and the discriminant on them; no pseudo-feature is made.

A past class's pseudo-features are its donor's rows moved as a whole, so their scatter about their mean is the
donor's own and their mean is the past centroid. The pooled scatter of all classes is therefore a sum over the
new rows, each weighted by how many classes its class stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Of real and pseudo-rows together, by class."""

    scatter: Tensor  # (width, width) float64, within the classes
    means: Tensor  # (classes, width) float64
    counts: Tensor  # (classes,) float64, a past class's is its donor's

    def gram(self) -> Tensor:
        """(width, width): the sum of outer products of all rows."""
        return self.scatter + self.means.T @ (self.counts[:, None] * self.means)


def pooled_scatter(
    labels: NDArray[np.int64],
    blocks: Iterable[NDArray[np.int16]],
    means: NDArray[np.float64],
    weights: NDArray[np.float64],
    device: torch.device,
) -> Tensor:
    """(width, width): the sum over classes of `weights` times the scatter about `means` (classes, width)."""
    width = means.shape[1]
    centres = torch.tensor(means, device=device)
    shares = torch.tensor(np.sqrt(weights), device=device)
    total, read = torch.zeros(width, width, dtype=torch.float64, device=device), 0
    for block in blocks:
        label = torch.tensor(labels[read : read + len(block)], device=device)
        rows = torch.tensor(block, dtype=torch.float64, device=device) - centres[label]
        rows *= shares[label, None]
        total += rows.T @ rows
        read += len(block)
    return total


def discriminant(moments: Moments, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Weight (classes, width) and bias (classes,) of the linear discriminant with equal priors.

    `S = (1 - shrinkage) scatter / n + shrinkage trace(scatter / n) / width I`, `w_c = S^-1 mu_c` and
    `b_c = -w_c . mu_c / 2`. Without any scatter `S` is the identity: nearest mean.
    """
    width = len(moments.scatter)
    covariance = moments.scatter / moments.counts.sum()
    spread = float(covariance.trace()) / width
    eye = torch.eye(width, dtype=torch.float64, device=covariance.device)
    shrunk = (1 - shrinkage) * covariance + shrinkage * spread * eye if spread > 0 else eye
    weight = torch.cholesky_solve(moments.means.T, torch.linalg.cholesky(shrunk)).T
    return weight, -(weight * moments.means).sum(1) / 2
