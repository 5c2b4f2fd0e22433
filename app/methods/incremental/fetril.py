"""`fetril`: feature translation for class-incremental learning without old rows.

Petit et al., "FeTrIL: Feature Translation for Exemplar-Free Class-Incremental Learning" (WACV 2023). The
network is frozen and of a past class only the centroid is kept. To learn new classes, every past class `p`
gets a donor, the most similar new class `n`, and the donor's rows moved onto its centroid stand in for it:
`X_p = X_n - mu_n + mu_p`. One linear classifier is fitted from zero on all of them, so that the head
depends on the rows of this update and the centroids of the past, and on nothing else.

Solvers: `svm` (the paper's: one squared-hinge classifier per class, rows of length one after the move),
`softmax` (the paper's `fc` variant, its strictly convex objective solved instead of approached by epochs) and
`closed_form` (a linear discriminant with shared, strongly shrunk covariance on the moments of the moved rows,
which are not normalised again; its weights are the correctly rounded solution of an integer system, the same
bytes on any machine).

A known class among the data is new again: its rows, a possible donor, its old and new rows in its centroid.
Cost: `svm` and `softmax` an iteration's products over the new rows and one number per pseudo-row and class;
`closed_form` one pass and one solve of width x width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import log
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from app.methods.base import (
    Centroid,
    Context,
    Data,
    Head,
    Kind,
    Method,
    Outcome,
    Params,
    Reads,
    Rows,
    Snapshot,
    Split,
    Task,
    Unfit,
)
from app.methods.parts import linear
from app.methods.parts.centroids import by_key, class_centroids, merge, need_centroids
from app.methods.parts.closed_form import LinearHead
from app.methods.parts.discriminant import Scatter, discriminant_of, nearest_mean
from app.methods.parts.donors import Donors, Rule, choose
from app.methods.parts.grid import Grid, step_bits, unit
from app.methods.parts.learning import SOLVE, need_memory, solved_head
from app.methods.parts.moments import pooled_scatter
from app.methods.parts.reading import reported
from app.methods.parts.statistics import TooLarge
from app.methods.parts.translation import Translation, translate


class FetrilParams(Params):
    """Which classifier, and whose rows stand in for a past class."""

    solver: Literal["svm", "softmax", "closed_form"] = Field(
        "svm",
        description="The classifier: one support vector machine per class, one softmax layer, or a linear "
        "discriminant in closed form.",
    )
    donor: Rule = Field(
        "cosine",
        description="How the new class most similar to a past one is found: by the angle between their "
        "centroids, or by their distance.",
    )
    C: float = Field(
        1.0, ge=1e-4, le=1e4, description="svm: what a row on the wrong side costs against large weights."
    )
    weight_decay: float = Field(
        5e-4, ge=1e-6, le=1, description="softmax: L2 penalty on the layer's weights."
    )
    shrinkage: float = Field(
        0.7, ge=1e-3, le=1, description="closed_form: how far the shared covariance is drawn to a sphere."
    )
    tol: float = Field(
        3e-5, ge=1e-6, le=0.1, description="svm, softmax: share of its first gradient at which a fit is done."
    )
    max_iterations: int = Field(
        500, ge=1, le=10_000, description="svm, softmax: iterations after which a fit ends in any case."
    )


@dataclass(frozen=True)
class Classes:
    """All classes of an update in the order of their keys, and who stands in for whom."""

    names: tuple[str, ...]
    new: NDArray[np.int64]  # indices of the new ones, in the order of `Rows.classes`
    past: NDArray[np.int64]  # indices of the past ones
    centroids: tuple[Centroid, ...]  # (classes,)
    own: NDArray[np.float64]  # (new, width) means of the rows of this update alone, in grid units
    donors: Donors

    @property
    def means(self) -> NDArray[np.float64]:
        """(classes, width), in grid units."""
        return np.stack([centroid.mean() for centroid in self.centroids])

    def stands_for(self, donor: int) -> NDArray[np.int64]:
        """Indices of the past classes that the new class `donor` (a position in `new`) stands for."""
        past: NDArray[np.int64] = self.past[self.donors.index == donor]
        return past


def run(before: Snapshot, data: Data, params: FetrilParams, ctx: Context) -> Outcome:
    """Give the new classes centroids, the past ones donors, and all of them one classifier."""
    rows = data[Split.NEW]
    need_centroids(before)
    if params.solver == "closed_form":
        need_memory(before, rows, SOLVE, ctx, expanded=False)
    total = _total(rows)
    found = class_centroids(rows.labels, rows.classes, reported(rows.blocks(), ctx, total, "centroids"))
    centroids = merge(before.centroids, found)
    classes = classes_of(rows.classes, found, centroids, params.donor)
    solve = _closed_form if params.solver == "closed_form" else _iterative
    head, report = solve(rows, classes, before.grid, params, ctx)
    ctx.report(total, total, "done")
    after = replace(before, classes=classes.names, centroids=centroids, head=head)
    donors = _donor_report(classes, unit(before.grid))
    return Outcome(after, {"solver": params.solver, **report, "donors": donors})


def _total(rows: Rows) -> int:
    """Units of progress: the rows read for their centroids, as many again for the fit, and its end."""
    return 2 * len(rows.labels) + 1


def classes_of(
    new: tuple[str, ...], found: dict[str, Centroid], centroids: dict[str, Centroid], rule: Rule
) -> Classes:
    names = by_key(centroids)
    ordered = tuple(centroids[name] for name in names)
    own = np.stack([found[name].mean() for name in new])
    place = {name: i for i, name in enumerate(names)}
    index = np.array([place[name] for name in new])
    past = np.array([i for i, name in enumerate(names) if name not in found], np.int64)
    donors = choose([ordered[i] for i in past], [ordered[i] for i in index], rule)
    return Classes(names, index, past, ordered, own, donors)


def _donor_report(classes: Classes, step: float) -> dict[str, dict[str, Any]]:
    return {
        classes.names[past]: {
            "donor": classes.names[classes.new[classes.donors.index[i]]],
            "cosine": float(classes.donors.cosine[i]),
            "distance": float(classes.donors.distance[i]) * step,
        }
        for i, past in enumerate(classes.past)
    }


def _iterative(
    rows: Rows, classes: Classes, grid: Grid, params: FetrilParams, ctx: Context
) -> tuple[Head, dict[str, Any]]:
    if len(classes.names) < 2:
        raise Unfit(f"{params.solver} needs two classes or more, known ones included", "/datasets")
    translated = translated_rows(rows, classes, unit(grid), ctx.device)

    done = len(rows.labels)

    def heard(_: int, gradient: float) -> None:
        nonlocal done  # as far as the logarithm of the gradient is on its way to that of `tol`
        share = log(max(gradient, params.tol)) / log(params.tol)
        done = max(done, len(rows.labels) + int(share * len(rows.labels)))
        ctx.report(done, _total(rows), params.solver, gradient=gradient)

    if params.solver == "svm":
        fit = linear.svm(translated, params.C, params.tol, params.max_iterations, heard)
    else:
        fit = linear.softmax(translated, params.weight_decay, params.tol, params.max_iterations, heard)
    return Head(fit.weight, fit.bias, normalise=True), {
        "rows": translated.count,
        "iterations": fit.solution.iterations,
        "converged": fit.solution.converged,
        "gradient": fit.solution.residual,
    }


def translated_rows(rows: Rows, classes: Classes, step: float, device: torch.device) -> Translation:
    """Each donor's rows as they are, and moved from their own mean to that of each class it stands for."""
    targets, offsets = [], []
    means = classes.means
    for donor, index in enumerate(classes.new):
        past = classes.stands_for(donor)
        moves = (means[past] - classes.own[donor]) * step
        targets.append([int(index), *map(int, past)])
        offsets.append(np.concatenate([np.zeros((1, moves.shape[1])), moves]))
    return translate(rows.load(), step, rows.labels, offsets, targets, len(classes.names), device)


def _closed_form(
    rows: Rows, classes: Classes, grid: Grid, params: FetrilParams, ctx: Context
) -> tuple[Head, dict[str, Any]]:
    """A function of integers and the shrinkage, a decimal: the same bytes everywhere."""
    blocks = reported(rows.blocks(), ctx, _total(rows), "moments", len(rows.labels))
    try:
        scatter = scatter_of(rows.labels, blocks, classes)
    except TooLarge as error:
        raise Unfit(f"{error}", "/datasets") from None
    shrinkage, bits = Fraction(repr(params.shrinkage)), step_bits(grid)
    found = solved_head(lambda: closed_form(scatter, classes, shrinkage, bits))
    return found.head(expanded=False), {"rows": scatter.rows}


def closed_form(scatter: Scatter, classes: Classes, shrinkage: Fraction, bits: int) -> LinearHead:
    """The shrunk discriminant of all classes; nearest mean where no row is off its mean."""
    sums = np.stack([centroid.sum for centroid in classes.centroids])
    counts = np.array([centroid.count for centroid in classes.centroids], np.int64)
    if not scatter.trace():
        return nearest_mean(sums, counts, bits)
    live = np.ones(sums.shape[1], np.bool_)
    return discriminant_of(scatter, sums, counts, shrinkage, bits, live)


def scatter_of(labels: NDArray[np.int64], blocks: Iterable[NDArray[np.int16]], classes: Classes) -> Scatter:
    """What `translated_rows` would have, not normalised; a known class among the new at its merged mean."""
    stand_ins = np.bincount(classes.donors.index, minlength=len(classes.new))
    return pooled_scatter(labels, blocks, 1 + stand_ins, classes.own.shape[1])


METHOD = Method(
    name="fetril",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=FetrilParams,
    run=run,
    summary="Adds classes without old rows: rows of the most similar new class, moved onto the centroid of a "
    "past one, stand in for it.",
    source="Petit et al., FeTrIL: Feature Translation for Exemplar-Free Class-Incremental Learning (WACV "
    "2023)",
)
