"""L-BFGS for many independent convex problems at once: one per column, each with its own step and history.

Limited-memory BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4). The line search reads slopes
only: in float32 differences of a sum of many losses drown in rounding long before their derivative does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

OVERSHOOT = 0.5  # a step is taken back once the slope has turned to this share of what it was
TRIES = 20


Gradient = Callable[[Tensor, Tensor], Tensor]  # (size, k) and which problems these are (k,) -> (size, k)


@dataclass(frozen=True)
class Solution:
    """The minimiser (size, problems), and what it took."""

    x: Tensor
    iterations: int
    converged: bool
    residual: float  # the worst |gradient| / |gradient at the start|


@dataclass(frozen=True)
class _Pair:
    step: Tensor  # (size, problems)
    change: Tensor  # of the gradient
    inverse: Tensor  # (problems,) 1 / (step . change), zero where there was no curvature


def minimise(
    gradient: Gradient,
    start: Tensor,
    curvature: float,
    tol: float,
    max_iterations: int,
    on_iteration: Callable[[int, float], None] = lambda *_: None,
    memory: int = 10,
) -> Solution:
    """Minimise strictly convex functions, one per column of `start` (size, problems), by their `gradient`.

    `curvature` is an upper bound of the second derivatives: it sets the first step. A problem is done when
    its gradient is `tol` of the first; `on_iteration` hears the iteration and the worst such share.
    """
    x, g = start, gradient(start, torch.arange(start.shape[1], device=start.device))
    first = g.norm(dim=0).clamp_min(torch.finfo(g.dtype).tiny)
    pairs: list[_Pair] = []
    scale = torch.full_like(first, 1 / curvature)
    for iteration in range(max_iterations + 1):
        share = g.norm(dim=0) / first
        on_iteration(iteration, float(share.max()))
        direction = -_inverse_hessian(g, pairs, scale)
        slope = _dot(direction, g)
        live = ((share > tol) & (slope < 0)).nonzero()[:, 0]
        if len(live) == 0 or iteration == max_iterations:
            break
        x_next, g_next = _search(gradient, x, g, direction, slope, live)
        step, change = x_next - x, g_next - g
        product = _dot(step, change)
        curved = product > 0
        inverse = torch.where(curved, 1 / torch.where(curved, product, 1.0), 0.0)
        pairs = [*pairs, _Pair(step, change, inverse)][-memory:]
        scale = torch.where(curved, product / torch.where(curved, _dot(change, change), 1.0), scale)
        x, g = x_next, g_next
    return Solution(x, iteration, bool((share <= tol).all()), float(share.max()))


def _search(
    gradient: Gradient, x: Tensor, g: Tensor, direction: Tensor, slope: Tensor, live: Tensor
) -> tuple[Tensor, Tensor]:
    """Step 1 where it does not overshoot, otherwise back to where the secant of the slope crosses zero.

    Only the problems `live` move, and only those that overshot are tried again.
    """
    x_next, g_next, length = x.clone(), g.clone(), torch.ones_like(slope)
    for _ in range(TRIES):
        along = direction[:, live]
        x_next[:, live] = x[:, live] + length[live] * along
        g_next[:, live] = gradient(x_next[:, live], live)
        before, after = slope[live], _dot(along, g_next[:, live])
        over = after > OVERSHOOT * -before
        if not bool(over.any()):
            break
        live, before, after = live[over], before[over], after[over]
        length[live] *= (before / (before - after)).clamp(0.1, 0.9)
    return x_next, g_next


def _inverse_hessian(g: Tensor, pairs: list[_Pair], scale: Tensor) -> Tensor:
    """The two-loop recursion."""
    q, shares = g.clone(), []
    for pair in reversed(pairs):
        share = pair.inverse * _dot(pair.step, q)
        shares.append(share)
        q -= share * pair.change
    q *= scale
    for pair, share in zip(pairs, reversed(shares), strict=True):
        q += pair.step * (share - pair.inverse * _dot(pair.change, q))
    return q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=0)
