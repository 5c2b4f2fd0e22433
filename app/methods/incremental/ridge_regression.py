"""`ridge_regression`: one real target, learned exactly.

Hoerl & Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems" (Technometrics 1970), with
an intercept that is not penalised. Targets lie on a grid of the model, so that their sums with the features
are integers; the weights are the correctly rounded solution and equal those of joint training bit for bit,
after any updates in any order.

Cost: rows x width^2 for the sums, width^3 / 3 for the solve.
"""

from __future__ import annotations

from app.methods.base import Context, Data, Kind, Method, Outcome, Params, Reads, Snapshot, Split, Task, Unfit
from app.methods.parts.closed_form import LinearHead
from app.methods.parts.crossvalidation import choose_k
from app.methods.parts.grid import step_bits
from app.methods.parts.learning import SOLVE, learned, need_memory, outcome, solved_head
from app.methods.parts.model_settings import Ridge, TargetGrid
from app.methods.parts.ridge import regression
from app.methods.parts.statistics import Statistics


class RidgeRegressionParams(Params):
    """Nothing to choose: the ridge is a setting of the model."""


def run(before: Snapshot, data: Data, params: RidgeRegressionParams, ctx: Context) -> Outcome:
    """Add the rows to the statistics and solve; without rows, solve what is known."""
    rows = data[Split.NEW]
    if before.target is None:
        raise Unfit("this model has no grid for targets", "/method/name")
    target = before.target
    need_memory(before, rows, METHOD.memory, ctx)
    found = learned(before, rows, ctx, regression=True)
    if not found.statistics.rows:
        raise Unfit("the data has no rows to learn from", "/datasets")
    head, k = solved_head(lambda: head_of(found.statistics, before.ridge, step_bits(before.grid), target))
    return outcome(before, found, head, len(rows.labels), ctx, k=k)


def head_of(statistics: Statistics, setting: Ridge, bits: int, target: TargetGrid) -> tuple[LinearHead, int]:
    """The head of these statistics and the k of its ridge. Raises `Degenerate` and `Undecided`."""
    k = choose_k(statistics) if setting == "gcv" else setting.k
    return regression(statistics, k, bits, target.exponent), k


METHOD = Method(
    name="ridge_regression",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.REGRESSION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.FEATURES,
    params=RidgeRegressionParams,
    run=run,
    summary="Ridge regression of one real target; any updates in any order equal all rows at once, bit for "
    "bit.",
    source="Hoerl & Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems (Technometrics "
    "1970)",
    statistics=True,
    memory=SOLVE,
)
