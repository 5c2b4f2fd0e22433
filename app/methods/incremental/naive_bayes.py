"""`naive_bayes`: Gaussian naive Bayes with one variance per feature, shared by the classes.

Zheng et al., "Revisiting Discriminative vs. Generative Classifiers: Theory and Implications" (ICML 2023): on
frozen features a generative head needs far fewer rows to reach its limit than a discriminative one, whose
limit is better. With a shared variance it is a linear classifier. Each weight is a quotient of exact sums,
rounded once. Priors are uniform.

Cost: rows x width^2 for the statistics that all exact heads share; the head itself is classes x width.
"""

from __future__ import annotations

from fractions import Fraction

from pydantic import Field

from app.methods.base import (
    Context,
    Data,
    Kind,
    Memory,
    Method,
    Outcome,
    Params,
    Reads,
    Snapshot,
    Split,
    Task,
    Unfit,
)
from app.methods.parts.bayes import naive_bayes
from app.methods.parts.grid import step_bits
from app.methods.parts.learning import learned, need_memory, outcome, solved_head


class NaiveBayesParams(Params):
    """How variances near zero are kept from deciding alone."""

    smoothing: float = Field(
        1e-3,
        ge=1e-9,
        le=10,
        description="Share of the mean variance added to every feature's; taken as the decimal it is "
        "written as.",
    )


def run(before: Snapshot, data: Data, params: NaiveBayesParams, ctx: Context) -> Outcome:
    """Add the rows to the statistics and divide; without rows, divide what is known."""
    rows = data[Split.NEW]
    need_memory(before, rows, METHOD.memory, ctx)
    found = learned(before, rows, ctx)
    if not found.statistics.rows:
        raise Unfit("the data has no rows to learn from", "/datasets")
    smoothing = Fraction(repr(params.smoothing))
    head = solved_head(lambda: naive_bayes(found.statistics, smoothing, step_bits(before.grid)))
    return outcome(before, found, head, len(rows.labels), ctx)


METHOD = Method(
    name="naive_bayes",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=NaiveBayesParams,
    run=run,
    summary="Gaussian naive Bayes with a shared variance per feature: good with few rows, and exact.",
    source="Zheng et al., Revisiting Discriminative vs. Generative Classifiers: Theory and Implications "
    "(ICML 2023)",
    statistics=True,
    memory=Memory(square=20, table=280, per_feature=16 * 2**10),  # sums alone: nothing is solved
)
