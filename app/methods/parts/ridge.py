"""Ridge regression with an intercept that is not penalised, on one-hot or real targets, from statistics.

With s the sum of all rows, n their number, G their Gram, Q the sums of rows times targets and t of the
targets: `W = (n G - s s^T + 2**(j + k) I)^-1 (n Q - s t^T)`, `b = (t - W^T s) / n`, where j is the largest
integer with `2**j d <= trace(n G - s s^T)` and d the number of features that vary.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from app.methods.parts import double_double as dd
from app.methods.parts.closed_form import (
    Degenerate,
    LinearHead,
    Live,
    intercept,
    live_gram,
    means,
    over,
    solved,
    times,
    varying,
)
from app.methods.parts.double_double import DD, Array
from app.methods.parts.refined_solve import Solution, System
from app.methods.parts.slicing import SAFETY, norms
from app.methods.parts.statistics import Integers, Statistics

SUSPECT = 2.0**-80  # a difference so much smaller than its terms is taken again in rationals


def ridge(statistics: Statistics, k: int, step_bits: int) -> LinearHead:
    """One-hot targets, one output per class: the analytic head of ACIL and G-ACIL.

    Features are integers times `2**-step_bits`. Raises `Degenerate` and `Undecided`.
    """
    return _ridge(statistics, statistics.sums, statistics.counts, k, step_bits, unit=1.0)


def regression(statistics: Statistics, k: int, step_bits: int, target_exponent: int) -> LinearHead:
    """Real targets, one output, in their own unit. Raises `Degenerate` and `Undecided`."""
    targets = statistics.targets
    if targets is None:
        raise Degenerate("these statistics hold no targets")
    total = np.array([targets.total], np.int64)
    return _ridge(statistics, targets.cross[None], total, k, step_bits, 2.0**target_exponent)


def balanced_ridge(statistics: Statistics, k: int, step_bits: int) -> LinearHead:
    """Every class weighs the same, `w_c = n / (C n_c)` per row, its scatter its share of the pooled one.

    The system is `S_W + sum_c w_c s_c s_c^T / n_c - n m m^T + 2**(j + k) / n I`, m the mean of the class
    means `mu_c`, right side `n / C (mu_c - m)`, `b_c = 1 / C - m . W_c`. Raises `Degenerate` and `Undecided`.
    """
    live = varying(statistics)
    n, counts, classes = statistics.rows, statistics.counts, len(statistics.classes)
    sums = statistics.sums[:, live]
    weights = [Fraction(n, classes * int(c)) for c in counts]
    centres = means(sums, counts)
    middle = over(dd.total(centres.T), classes).T  # (width, 1)
    # The sums may cancel: what they lose is bounded by the magnitudes.
    sizes = np.abs(centres.hi)
    middle_error = float(np.linalg.norm(sizes.mean(axis=1))) * (classes * dd.SUM + 4 * dd.PRODUCT) * SAFETY
    right, right_error = _spread_of(centres, middle, sums, counts)
    exponent = ridge_exponent(statistics, live) + k
    system = System(
        gram=live_gram(statistics, live),
        a=dd.exact(1.0),
        columns=sums.T.astype(np.float64),
        b=dd.from_fractions([(w - 1) / int(c) for w, c in zip(weights, counts, strict=True)]),
        h=dd.from_fractions(weights),
        over=dd.exact(float(n)),
        ridge=dd.from_fraction(Fraction(2) ** exponent / n),
        right=times(right, Fraction(n, classes)),
        right_error=right_error * n / classes,
    )
    share = dd.from_fractions([Fraction(1, classes)] * classes)
    centre = DD(middle.hi[:, 0], middle.lo[:, 0])
    head = solved(system, live, step_bits, lambda found: intercept(share, centre, middle_error, found))
    return replace(head, ridge_exponent=exponent)


def ridge_exponent(statistics: Statistics, live: Live) -> int:
    """j: the largest integer with `2**j d <= trace(n G - s s^T)`, d the live features (each adds 1)."""
    diagonal, total = statistics.diagonal()[live].tolist(), statistics.total()[live].tolist()
    trace: int = statistics.rows * sum(diagonal) - sum(value**2 for value in total)
    return (trace // len(diagonal)).bit_length() - 1


def _ridge(
    statistics: Statistics, cross: Integers, totals: Integers, k: int, step_bits: int, unit: float
) -> LinearHead:
    """`cross` (outputs, width) and `totals` (outputs,) are sums of rows times targets, and of targets."""
    live = varying(statistics)
    n, total = statistics.rows, statistics.total()[live].astype(np.float64)
    sums, shares = cross[:, live].T.astype(np.float64), totals.astype(np.float64)
    exponent = ridge_exponent(statistics, live) + k
    system = System(
        gram=live_gram(statistics, live),
        a=dd.exact(float(n)),
        columns=total[:, None],
        b=dd.exact(np.array([-1.0])),
        h=dd.exact(np.zeros(1)),
        over=dd.exact(1.0),
        ridge=dd.exact(2.0**exponent),
        right=dd.add(
            dd.two_product(np.asarray(float(n)), sums), -dd.two_product(total[:, None], shares[None])
        ),
    )
    mean, share = over(dd.exact(total), n), over(dd.exact(shares), n)
    head = solved(
        system,
        live,
        step_bits,
        lambda found: intercept(share, mean, 0.0, found),
        unit,
        lambda found, output: _plain_share(found, output, total, Fraction(int(totals[output]), n)),
    )
    return replace(head, ridge_exponent=exponent)


def _plain_share(found: Solution, output: int, total: Array, share: Fraction) -> Fraction | None:
    """The bias where it is the share itself: the features sum to 0, or the output's weights are all 0."""
    no_weights = found.error[output] == 0 and not found.weights.hi[:, output].any()
    return share if no_weights or not total.any() else None


def _spread_of(centres: DD, middle: DD, sums: Integers, counts: Integers) -> tuple[DD, Array]:
    """`mu_c - m`, (width, classes), and a bound on the 2-norm of each column's error beyond the relative one.

    Where a difference is so small that it may be zero it is taken in rationals: a column of zeros is zeros.
    """
    spread = dd.add(centres, -middle)
    sizes = np.abs(centres.hi)
    mean_size = sizes.mean(axis=1, keepdims=True)
    lost = 2 * dd.PRODUCT * sizes + (len(counts) * dd.SUM + 4 * dd.PRODUCT) * mean_size
    suspect = np.abs(spread.hi) <= SUSPECT * (sizes + mean_size)
    hi, lo = spread.hi.copy(), spread.lo.copy()
    for i in np.flatnonzero(suspect.any(axis=1)):
        exact = [Fraction(int(s), int(n)) for s, n in zip(sums[:, i], counts, strict=True)]
        mean = sum(exact, Fraction(0)) / len(exact)
        for c in np.flatnonzero(suspect[i]):
            value = dd.from_fraction(exact[c] - mean)
            hi[i, c], lo[i, c], lost[i, c] = value.hi, value.lo, 0.0
    return DD(hi, lo), norms(lost)
