"""What the linear heads in closed form share: they are functions of statistics and settings, and of nothing
else.

Every such head is the correctly rounded solution of an integer system (`refined_solve`), so it is the same
float32 on any machine, after any order of rows. Learning computes it after adding statistics, forgetting
after subtracting them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
import torch
from numpy.typing import NDArray

from app.methods.base import Head
from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD, UNIT, Array
from app.methods.parts.refined_solve import Solution, System, rounded_weights, until_decided
from app.methods.parts.rounding import decide, half_to_even
from app.methods.parts.slicing import norms
from app.methods.parts.statistics import Integers, Statistics

Live = NDArray[np.bool_]
TERM_SIZE = 8 * UNIT  # two high parts for their double-doubles, and a product


class Degenerate(ValueError):
    """These statistics have no head of this kind: too few rows, or no feature that varies."""


@dataclass(frozen=True)
class LinearHead:
    """`scores = weight @ x + bias` for features x in the unit of the grid, each entry correctly rounded."""

    weight: NDArray[np.float32]  # (outputs, width)
    bias: NDArray[np.float32]  # (outputs,)
    ridge_exponent: int | None = None  # of the ridge, a power of two
    error_bound: float | None = None  # on the 2-norm of an output's weights before they were rounded

    def head(self, *, expanded: bool) -> Head:
        """As a version holds it."""
        return Head(torch.from_numpy(self.weight), torch.from_numpy(self.bias), False, expanded)


def solved(
    system: System,
    live: Live,
    step_bits: int,
    bias: Callable[[Solution], tuple[DD, Array]],
    unit: float = 1.0,
    exact_bias: Callable[[Solution, int], Fraction | None] = lambda _, __: None,
) -> LinearHead:
    """Weights per feature value (`2**step_bits` times those per grid step), and biases.

    A column of the rounding is an output's weights. Its bias, of another unit, is rounded below the sizes
    of what it is the sum of, which `bias` gives with it: one below `2**-60` of the largest is 0, so that
    terms which cancel are decided. `unit` is the power of two of the outputs. `exact_bias` gives the bias
    of an output where that is known as a fraction: one halfway between two float32 no bound decides.
    Features that are not `live` weigh 0. Raises `Undecided`.
    """
    scale = 2.0**step_bits * unit

    def rounding(found: Solution) -> LinearHead | None:
        weights = rounded_weights(found, scale)
        if weights is None:
            return None
        terms, error = bias(found)
        rounded, decided = decide(terms.scaled(unit), error * unit)
        biases = rounded[-1].copy()
        for output in np.flatnonzero(~decided[-1]):
            exact = exact_bias(found, int(output))
            if exact is None:
                return None
            biases[output] = half_to_even(exact * Fraction(unit))
        weight = np.zeros((weights.shape[1], len(live)), dtype=np.float32)
        weight[:, live] = weights.T
        return LinearHead(weight, biases, error_bound=float((found.error * scale).max(initial=0.0)))

    return until_decided(system, rounding)


def intercept(share: DD, mean: DD, mean_error: float, found: Solution) -> tuple[DD, Array]:
    """By output the size of a term of `mean . W`, the share, and `share - mean . W`, (3, outputs); and a
    bound on their error by entry.

    `share` (outputs,) within a relative `4 * dd.PRODUCT`; `mean` (width,) too, and `mean_error` beyond that
    in the 2-norm. Sums by Cauchy-Schwarz.
    """
    products = dd.multiply(dd.upright(mean), found.weights)
    size, length = float(np.linalg.norm(mean.hi)), norms(found.weights.hi)
    relative = 8 * dd.PRODUCT + (len(mean.hi) + 1) * dd.SUM
    error = (size + mean_error) * found.error + mean_error * length
    error = error + relative * (size * length + np.abs(share.hi))
    first, size_of_term = DD(share.hi[None], share.lo[None]), term_size(mean.hi[:, None], found)
    terms = stacked(dd.exact(size_of_term), first, dd.add(first, -dd.total(products)))
    return terms, np.vstack([error + TERM_SIZE * size_of_term, [error, error]])


def term_size(mean: Array, found: Solution) -> Array:
    """(1, outputs): the largest mean times the largest weight; `TERM_SIZE`: its relative error."""
    largest: Array = np.abs(mean).max(axis=0) * np.abs(found.weights.hi).max(axis=0)
    return largest[None]


def stacked(*parts: DD) -> DD:
    """One below the other."""
    return DD(np.vstack([part.hi for part in parts]), np.vstack([part.lo for part in parts]))


def varying(statistics: Statistics) -> Live:
    """Features of nonzero centred diagonal, `n G_ii != s_i^2` in integers; raises where there is none."""
    n = statistics.rows
    pairs = zip(statistics.diagonal().tolist(), statistics.total().tolist(), strict=True)
    live = np.array([n * square != total**2 for square, total in pairs])
    if not live.any():
        raise Degenerate("no feature varies over these rows: there is nothing to learn from")
    return live


def live_gram(statistics: Statistics, live: Live) -> Array:
    """(live, live)."""
    full = statistics.full_gram()
    return full if live.all() else np.ascontiguousarray(full[np.ix_(live, live)])


def within_squares(squares: Integers, sums: Integers, counts: Integers, shares: Integers) -> list[Fraction]:
    """(width,): for each feature `squares - sum_c shares_c sums_c^2 / counts_c`, exactly.

    With shares of 1 and the squares of all rows: the scatter within the classes.
    """
    common = lcm(*map(int, counts))
    factors = [common // int(n) * int(share) for n, share in zip(counts, shares, strict=True)]
    left = [common * square for square in squares.tolist()]
    for factor, row in zip(factors, sums.tolist(), strict=True):
        left = [value - factor * total * total for value, total in zip(left, row, strict=True)]
    return [Fraction(value, common) for value in left]


def means(sums: Integers, counts: Integers) -> DD:
    """(width, classes) class means, relative error below `2 * dd.PRODUCT`."""
    return dd.divide(dd.exact(sums.T.astype(np.float64)), dd.exact(counts.astype(np.float64)[None]))


def over(x: DD, n: int) -> DD:
    return dd.divide(x, dd.exact(np.full_like(x.hi, float(n))))


def times(x: DD, factor: int | Fraction) -> DD:
    scalar = dd.from_fraction(Fraction(factor))
    return dd.multiply(DD(np.full_like(x.hi, scalar.hi), np.full_like(x.hi, scalar.lo)), x)
