"""The linear discriminant with one shared covariance, shrunk to a sphere, from integer sums; uniform priors.

`Sigma = scatter / n`, `Sigma' = (1 - rho) Sigma + rho trace(Sigma) / d I`, `w_c = Sigma'^-1 mu_c`,
`b_c = -mu_c . w_c / 2`: the tied Gaussians of streaming LDA (Hayes & Kanan 2020) and of Lee et al. (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from app.methods.parts import double_double as dd
from app.methods.parts.closed_form import (
    TERM_SIZE,
    Degenerate,
    LinearHead,
    Live,
    live_gram,
    means,
    solved,
    stacked,
    term_size,
    times,
    varying,
)
from app.methods.parts.double_double import DD, Array
from app.methods.parts.refined_solve import Solution, System
from app.methods.parts.rounding import round_quotients
from app.methods.parts.slicing import norms
from app.methods.parts.statistics import Integers, Statistics


@dataclass(frozen=True)
class Scatter:
    """`gram - sum_c shares_c sums_c sums_c^T / counts_c`, positive semidefinite, over `rows` rows."""

    gram: Array  # (width, width) integers
    sums: Integers  # (m, width)
    counts: Integers  # (m,)
    shares: Integers  # (m,)
    rows: int

    def trace(self) -> Fraction:
        """Squares, less each class's: the sum over its features first, so one fraction per class."""
        between = Fraction(0)
        for sums, count, share in zip(self.sums.tolist(), self.counts, self.shares, strict=True):
            between += Fraction(int(share) * sum(value * value for value in sums), int(count))
        squares: int = sum(self.gram.diagonal().astype(np.int64).tolist())
        return squares - between


def discriminant(statistics: Statistics, shrinkage: Fraction, step_bits: int) -> LinearHead:
    """Of the classes of these statistics. Raises `Degenerate` and `Undecided`."""
    if statistics.rows <= len(statistics.classes):
        raise Degenerate(
            f"a covariance needs more rows than classes: {statistics.rows:,} rows of "
            f"{len(statistics.classes):,} classes say nothing of how a class spreads"
        )
    live = varying(statistics)
    sums, ones = statistics.sums[:, live], np.ones_like(statistics.counts)
    scatter = Scatter(live_gram(statistics, live), sums, statistics.counts, ones, statistics.rows)
    return discriminant_of(scatter, sums, statistics.counts, shrinkage, step_bits, live)


def discriminant_of(
    scatter: Scatter, sums: Integers, counts: Integers, shrinkage: Fraction, step_bits: int, live: Live
) -> LinearHead:
    """Of classes with means `sums / counts` (classes, width) that share a scatter; both of `live` features.

    The system is the formula times the number of rows. Raises `Degenerate` without any scatter, and
    `Undecided`.
    """
    trace = scatter.trace()
    if trace <= 0:
        raise Degenerate("no feature varies within a class: there is no covariance")
    pairs = zip(scatter.shares, scatter.counts, strict=True)
    system = System(
        gram=scatter.gram,
        a=dd.from_fraction(1 - shrinkage),
        columns=scatter.sums.T.astype(np.float64),
        b=dd.from_fractions([(shrinkage - 1) * int(share) / int(count) for share, count in pairs]),
        h=dd.exact(np.zeros(len(scatter.counts))),
        over=dd.exact(1.0),
        ridge=dd.from_fraction(shrinkage * trace / scatter.sums.shape[1]),
        right=times(means(sums, counts), scatter.rows),
    )
    centres = means(sums, counts)

    def bias(found: Solution) -> tuple[DD, Array]:
        product = dd.total(dd.multiply(centres, found.weights))
        size = norms(centres.hi)
        relative = 4 * dd.PRODUCT + len(centres.hi) * dd.SUM
        error = size * found.error + relative * size * norms(found.weights.hi)
        largest = term_size(centres.hi, found)
        terms = stacked(dd.exact(largest), product).scaled(-0.5)
        return terms, np.vstack([error + TERM_SIZE * largest, [error]])

    return solved(system, live, step_bits, bias)


def nearest_mean(sums: Integers, counts: Integers, step_bits: int) -> LinearHead:
    """What is left of it where nothing scatters and the covariance is a sphere: `w_c = mu_c`, per value."""
    centres = means(sums, counts).scaled(2.0**-step_bits)
    bias = dd.total(dd.multiply(centres, centres)).scaled(-0.5)
    relative = 6 * dd.PRODUCT + len(centres.hi) * dd.SUM

    def exact(c: int) -> list[Fraction]:
        return [Fraction(int(s), int(counts[c])) * Fraction(2) ** -step_bits for s in sums[c]]

    def exact_bias(c: int) -> list[Fraction]:
        return [-sum((value * value for value in exact(c)), Fraction(0)) / 2]

    weight = round_quotients(centres, 2 * dd.PRODUCT * np.abs(centres.hi), exact)
    return LinearHead(
        np.ascontiguousarray(weight.T), round_quotients(bias, relative * np.abs(bias.hi), exact_bias)[0]
    )
