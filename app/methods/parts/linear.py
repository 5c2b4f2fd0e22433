"""The linear classifiers of FeTrIL, fitted on pseudo-features in factors, from zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from app.methods.parts.lbfgs import Solution, minimise
from app.methods.parts.translation import Own, Translation


@dataclass(frozen=True)
class Fit:
    """A classifier, (classes, width) and (classes,), and how it was found."""

    weight: Tensor
    bias: Tensor
    solution: Solution


def svm(
    rows: Translation,
    C: float,
    tol: float,
    max_iterations: int,
    on_iteration: Callable[[int, float], None] = lambda *_: None,
) -> Fit:
    """One squared-hinge classifier per class against the rest, the objective of liblinear's primal solver.

    `(|w|^2 + b^2) / 2 + C sum_i max(0, 1 - y_i (w . z_i + b))^2`: the intercept is regularised as the weight
    of a constant feature is. The problems are independent and solved side by side.
    """

    def gradient(x: Tensor, classes: Tensor) -> Tensor:
        return x + 2 * C * rows.gradient(x[:-1], x[-1], classes, _hinge)

    start = rows.rows.new_zeros(rows.rows.shape[1] + 1, rows.classes)
    curvature = 1 + 4 * C * rows.count  # |z|^2 + 1 is at most 2
    return _fit(minimise(gradient, start, curvature, tol, max_iterations, on_iteration), rows.classes)


def softmax(
    rows: Translation,
    weight_decay: float,
    tol: float,
    max_iterations: int,
    on_iteration: Callable[[int, float], None] = lambda *_: None,
) -> Fit:
    """A linear layer: mean cross-entropy plus `weight_decay / 2` times its squared weights, bias included."""

    every = torch.arange(rows.classes, device=rows.rows.device)

    def gradient(x: Tensor, _: Tensor) -> Tensor:
        layer = x.view(-1, rows.classes)
        mean = rows.gradient(layer[:-1], layer[-1], every, _softmax) / rows.count
        return (weight_decay * layer + mean).view(-1, 1)

    start = rows.rows.new_zeros((rows.rows.shape[1] + 1) * rows.classes, 1)
    return _fit(
        minimise(gradient, start, weight_decay + 1, tol, max_iterations, on_iteration),
        rows.classes,
    )


def _hinge(scores: Tensor, own: Own) -> Tensor:
    """Half the derivative of the squared hinge: own class +1, every other -1."""
    missing = (1 - own.get(scores)).relu_()
    left = scores.add_(1).relu_()
    own.set(left, -missing)
    return left


def _softmax(scores: Tensor, own: Own) -> Tensor:
    """Probabilities minus the one-hot label."""
    left = torch.softmax(scores, dim=-1)
    own.set(left, own.get(left) - 1)
    return left


def _fit(solution: Solution, classes: int) -> Fit:
    x = solution.x.view(-1, classes).cpu()
    return Fit(x[:-1].T.contiguous(), x[-1].clone(), solution)
