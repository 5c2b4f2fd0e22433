"""`teen`: prototypes of few-shot classes, calibrated by those of base classes; nothing is trained.

Wang et al., "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration" (NeurIPS 2023). The
mean of a handful of rows is a poor prototype, and new classes are swallowed by base classes; but which base
classes a new one resembles is known well, and a mixture of their prototypes corrects it
(`parts/calibration.py`). A class is few-shot while it has fewer than `shots` rows, so a class that grows
comes to stand on its own mean, and the head is a function of the centroids: order of arrival does not enter.

Both parameters are given, or chosen on the model's evaluation data by hiding base classes there: the
published code picks them on the test set. Cost: one pass over the rows; few-shot x base x width operations;
to choose, six passes over the evaluation data.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from pydantic import Field

from app.methods import networks
from app.methods.base import (
    Centroid,
    Context,
    Data,
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
from app.methods.parts import calibration, calibration_choice
from app.methods.parts.calibration import HOTTEST, base_of, calibrated_head
from app.methods.parts.calibration_choice import choose
from app.methods.parts.centroids import by_key, class_centroids, merge, need_centroids
from app.methods.parts.learning import solved_head
from app.methods.parts.reading import reported


class TeenParams(Params):
    """How far a few-shot prototype is drawn, and towards what."""

    tau: float = Field(
        16.0, ge=0, le=HOTTEST, description="How much the most similar base classes count beside the others."
    )
    alpha: float = Field(
        0.5, ge=0, le=1, description="Share of the base classes' mixture in a few-shot prototype."
    )
    shots: int = Field(
        30,
        ge=1,
        le=100_000,
        description="A class of fewer rows is few-shot. Where every class is, none is calibrated.",
    )
    choose: bool = Field(
        False,
        description="Choose tau and alpha on the model's evaluation data, where base classes play few-shot "
        "ones; what is given for them is not read.",
    )


def run(before: Snapshot, data: Data, params: TeenParams, ctx: Context) -> Outcome:
    """Add the rows to the means of their classes, calibrate, and read the head off the prototypes."""
    rows = data[Split.NEW]
    need_centroids(before)
    _need_memory(before, rows, params, ctx)
    total = len(rows.labels) + 1
    centroids = dict(before.centroids)
    if len(rows.labels) or not centroids:
        blocks = reported(rows.blocks(), ctx, total, "means")
        centroids = merge(centroids, class_centroids(rows.labels, rows.classes, blocks))
    base = base_of(centroids, params.shots)
    tau, alpha, report = _parameters(data, params, centroids, base)
    head, weights = solved_head(lambda: calibrated_head(centroids, base, tau, alpha))
    ctx.report(total, total, "done")
    after = replace(before, classes=by_key(centroids), centroids=centroids, head=head)
    return Outcome(after, {**report, "calibrated": weights})


def _parameters(
    data: Data, params: TeenParams, centroids: dict[str, Centroid], base: tuple[str, ...]
) -> tuple[Fraction, Fraction, dict[str, Any]]:
    """tau and alpha as the decimals they are written as, and what is said of them."""
    if not params.choose:
        said = {"tau": params.tau, "alpha": params.alpha}
        return Fraction(repr(params.tau)), Fraction(repr(params.alpha)), said
    rows = data.get(Split.SELECT)
    if rows is None or not len(rows.labels):
        raise Unfit("choosing tau and alpha needs an evaluation data set", "/evaluation")
    found = choose(rows, centroids, base)
    said = {"tau": found.tau, "alpha": found.alpha, "score": found.score, "without": found.without}
    return Fraction(repr(found.tau)), Fraction(repr(found.alpha)), said


def _need_memory(before: Snapshot, rows: Rows, params: TeenParams, ctx: Context) -> None:
    """Raise `Unfit` where the prototypes, or choosing between them, would need more than there is."""
    width = networks.width(before.network, before.input)
    classes = len({*before.classes, *rows.classes})
    needed = calibration.memory(width, classes)
    if params.choose:
        needed = max(needed, calibration_choice.memory(width, classes))
    if needed > ctx.memory:
        what = "choosing tau and alpha for" if params.choose else "calibrating"
        raise Unfit(
            f"{what} {classes:,} classes of {width:,} features needs {needed / 2**30:,.1f} GiB of memory, "
            f"more than the {ctx.memory / 2**30:,.1f} GiB that there are",
            "/method/params/choose" if params.choose else "/method/name",
        )


METHOD = Method(
    name="teen",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=TeenParams,
    run=run,
    summary="Few-shot classes: nearest mean with the means of few rows drawn towards similar well-known "
    "classes.",
    source="Wang et al., Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration "
    "(NeurIPS 2023)",
    may_use=frozenset({Split.SELECT}),
    remakes_head=True,
)
