"""`lda`: linear discriminant analysis with one shared, shrunk covariance, streaming and exact.

Hayes & Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis" (CVPR workshops
2020); the same tied Gaussians are the classifier of Lee et al., "A Simple Unified Framework for Detecting
Out-of-Distribution Samples" (NeurIPS 2018). The pooled scatter is `G - sum_c s_c s_c^T / n_c`, from exact
sums, so any mix of classes in any batches gives the head of all rows at once. Priors are uniform.

Cost: rows x width^2 for the sums, width^3 / 3 for the solve.
"""

from __future__ import annotations

from fractions import Fraction

from pydantic import Field

from app.methods.base import Context, Data, Kind, Method, Outcome, Params, Reads, Snapshot, Split, Task, Unfit
from app.methods.parts.discriminant import discriminant
from app.methods.parts.grid import step_bits
from app.methods.parts.learning import SOLVE, learned, need_memory, outcome, solved_head


class LdaParams(Params):
    """How the covariance is made safe to invert."""

    shrinkage: float = Field(
        0.1,
        ge=1e-6,
        le=1,
        description="How far the shared covariance is drawn to a sphere; taken as the decimal it is "
        "written as.",
    )


def run(before: Snapshot, data: Data, params: LdaParams, ctx: Context) -> Outcome:
    """Add the rows to the statistics and solve; without rows, solve what is known."""
    rows = data[Split.NEW]
    need_memory(before, rows, METHOD.memory, ctx)
    found = learned(before, rows, ctx)
    if not found.statistics.rows:
        raise Unfit("the data has no rows to learn from", "/datasets")
    shrinkage = Fraction(repr(params.shrinkage))
    head = solved_head(lambda: discriminant(found.statistics, shrinkage, step_bits(before.grid)))
    return outcome(before, found, head, len(rows.labels), ctx)


METHOD = Method(
    name="lda",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=LdaParams,
    run=run,
    summary="Linear discriminant with one shared covariance; any updates in any order equal all rows at "
    "once, bit for bit.",
    source="Hayes & Kanan, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis (CVPRW "
    "2020)",
    statistics=True,
    memory=SOLVE,
)
