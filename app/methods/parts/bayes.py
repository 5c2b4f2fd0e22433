"""Gaussian naive Bayes with one variance per feature, shared by the classes, from statistics; uniform priors.

`v_j = S_jj / n + smoothing * mean_i(S_ii) / n`, S the scatter within classes; `w_cj = mu_cj / v_j`, `b_c =
-sum_j mu_cj^2 / (2 v_j)`. The variances are rational numbers; each weight is their quotient, rounded once.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from app.methods.parts import double_double as dd
from app.methods.parts.closed_form import Degenerate, LinearHead, means, varying, within_squares
from app.methods.parts.rounding import round_quotients
from app.methods.parts.statistics import Statistics

MEAN, QUOTIENT = 2 * dd.PRODUCT, 6 * dd.PRODUCT  # relative errors of what they name


def naive_bayes(statistics: Statistics, smoothing: Fraction, step_bits: int) -> LinearHead:
    """Raises `Degenerate` where no feature varies within a class, so with one row per class."""
    live = varying(statistics)
    sums, counts, n = statistics.sums[:, live], statistics.counts, statistics.rows
    within = within_squares(statistics.diagonal()[live], sums, counts, np.ones_like(counts))
    trace = sum(within, Fraction(0))
    if trace == 0:
        raise Degenerate("no feature varies within a class: there is no variance to divide by")
    floor = smoothing * trace / len(within)
    variances = [(value + floor) / n for value in within]
    centres = means(sums, counts)
    quotients = dd.divide(centres, dd.upright(dd.from_fractions(variances)))
    bias = dd.total(dd.multiply(centres, quotients)).scaled(-0.5)
    weights = quotients.scaled(2.0**step_bits)
    relative = MEAN + QUOTIENT + dd.PRODUCT + len(weights.hi) * dd.SUM  # of a sum of one sign

    def means_of(c: int) -> list[Fraction]:
        return [Fraction(int(total), int(counts[c])) for total in sums[c]]

    def exact(c: int) -> list[Fraction]:
        pairs = zip(means_of(c), variances, strict=True)
        return [mean / variance * Fraction(2) ** step_bits for mean, variance in pairs]

    def exact_bias(c: int) -> list[Fraction]:
        pairs = zip(means_of(c), variances, strict=True)
        return [-sum((mean * mean / variance for mean, variance in pairs), Fraction(0)) / 2]

    weight = np.zeros((len(counts), len(live)), dtype=np.float32)
    weight[:, live] = round_quotients(weights, QUOTIENT * np.abs(weights.hi), exact).T
    return LinearHead(weight, round_quotients(bias, relative * np.abs(bias.hi), exact_bias)[0])
