"""`analytic`: ridge regression on one-hot labels over a random expansion, equal to joint training bit for
bit.

Zhuang et al., "ACIL: Analytic Class-Incremental Learning with Absolute Memorization and Privacy Protection"
(NeurIPS 2022) and "G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning"
(2024): after any sequence of updates, known and new classes mixed, the head is the ridge solution on all
rows. Both run a recursion on the inverse; here the exact sums that determine the solution are kept and it is
solved once per version, rounded correctly, so the bytes are those of joint training. The expansion and the
ridge are settings of the model. `weights: classes` weighs the classes alike (Fang et al., "AIR: Analytic
Imbalance Rectifier", 2024), through the pooled scatter.

Cost: rows x width^2 for the sums, width^3 / 3 for the solve. Keeps 4 width^2 bytes, whatever came before.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.methods.base import Context, Data, Kind, Method, Outcome, Params, Reads, Snapshot, Split, Task, Unfit
from app.methods.parts.closed_form import LinearHead
from app.methods.parts.crossvalidation import choose_k
from app.methods.parts.grid import step_bits
from app.methods.parts.learning import SOLVE, learned, need_memory, outcome, solved_head
from app.methods.parts.model_settings import Ridge
from app.methods.parts.ridge import balanced_ridge, ridge
from app.methods.parts.statistics import Statistics


class AnalyticParams(Params):
    """How rows are weighed."""

    weights: Literal["rows", "classes"] = Field(
        "rows", description="What weighs the same: every row, or every class however many rows it has."
    )


def run(before: Snapshot, data: Data, params: AnalyticParams, ctx: Context) -> Outcome:
    """Add the rows to the statistics and solve; without rows, solve what is known."""
    rows = data[Split.NEW]
    need_memory(before, rows, METHOD.memory, ctx)
    found = learned(before, rows, ctx)
    if not found.statistics.rows:
        raise Unfit("the data has no rows to learn from", "/datasets")
    balanced, bits = params.weights == "classes", step_bits(before.grid)
    head, k = solved_head(lambda: head_of(found.statistics, before.ridge, bits, balanced=balanced))
    return outcome(before, found, head, len(rows.labels), ctx, k=k)


def head_of(
    statistics: Statistics, setting: Ridge, bits: int, *, balanced: bool = False
) -> tuple[LinearHead, int]:
    """The head of these statistics and the k of its ridge. Raises `Degenerate` and `Undecided`.

    Where a model asks for cross-validation, k is that of rows weighed alike in either case.
    """
    k = choose_k(statistics) if setting == "gcv" else setting.k
    return (balanced_ridge if balanced else ridge)(statistics, k, bits), k


METHOD = Method(
    name="analytic",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=AnalyticParams,
    run=run,
    summary="Ridge regression over a random expansion; any updates in any order equal joint training on all "
    "rows, bit for bit.",
    source="Zhuang et al., G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental "
    "Learning (2024)",
    statistics=True,
    memory=SOLVE,
)
