"""What the exact heads are held against: joint logistic regression, and a head in floating point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.linear_model import LogisticRegression

from app.methods.incremental import analytic
from benchmarks.candidates import arriving, learn, model, rows_of
from benchmarks.common import Bar, Row, mean_and_deviation, read
from benchmarks.peer import unit_rows
from benchmarks.sequence import on_grid, predict
from benchmarks.sets import Set
from benchmarks.suite import Found, Given

SEEDS = range(5)
WIDTHS = (2_048, 5_000)
K = -4
NEAR = 0.2  # points
COSTS = (3.0, 10.0, 30.0)
ITERATIONS = 1_000
Matrix = NDArray[np.float64]


def logistic(given: Given) -> Found:
    """Joint logistic regression at every state of the first order; its C chosen on other rows at each.

    The last state holds the same rows in every order, so its figure is that of all orders.
    """
    data, choose = given.data, given.choose
    order = arriving(data, seed=0)
    rows: list[Row] = []
    for state in range(len(order)):
        seen = np.concatenate(order[: state + 1])
        cost, found = tuned(_only(data, seen), _only(choose, seen))
        line: Row = {"state": state, "classes": len(seen), "C": cost, "logistic": found}
        rows.append(line | gaps(data.name, state, line["logistic"], last=state + 1 == len(order)))
        print(f"{data.name}: logistic, state {state} done", flush=True)
    return Found(rows)


def gaps(name: str, state: int, bound: float, *, last: bool) -> Row:
    """Points by which each head of *orders* is above the bound; at the last state the mean of its orders."""
    earlier = read("heads")
    lines = [] if earlier is None else earlier["rows"]
    found: Row = {}
    for row in lines:
        at = (row["set"], row["part"], row.get("table"), row.get("state"))
        if at == (name, "orders", "states", state):
            accuracy = row["accuracy"] if last else row["first_order"]
            found[f"{row['method']}_above"] = 100 * (accuracy - bound)
    return found


def tuned(data: Set, choose: Set) -> tuple[float, float]:
    """C of logistic regression on rows of length one, chosen on the rows of `choose`; its test accuracy."""
    tried = {cost: fitted(choose, cost) for cost in COSTS}
    scores = {cost: accuracy(head, choose) for cost, head in tried.items()}
    best = max(COSTS, key=lambda cost: scores[cost])
    again = not np.array_equal(data.x_train, choose.x_train)
    return best, accuracy(fitted(data, best) if again else tried[best], data)


def fitted(data: Set, cost: float) -> LogisticRegression:
    return LogisticRegression(C=cost, max_iter=ITERATIONS).fit(_unit(data.x_train), data.y_train)


def accuracy(head: LogisticRegression, data: Set) -> float:
    return float(head.score(_unit(data.x_test), data.y_test))


def _unit(x: NDArray[np.generic]) -> Matrix:
    return unit_rows(x.astype(np.float64))


def _only(data: Set, classes: NDArray[np.int64]) -> Set:
    train, test = np.isin(data.y_train, classes), np.isin(data.y_test, classes)
    return Set(data.name, data.x_train[train], data.y_train[train], data.x_test[test], data.y_test[test])


def projection(given: Given) -> Found:
    """All rows at once, five projections each: integers and exact sums, or Gaussian and floating point."""
    data, found = given.data, Found()
    for width in WIDTHS:
        ours = [integer(data, width, seed) for seed in SEEDS]
        theirs = [floating(data, width, seed) for seed in SEEDS]
        for name, runs in (("integer", ours), ("floating point", theirs)):
            mean, deviation = mean_and_deviation(runs)
            line = {"projection": name, "width": width, "seeds": len(runs)}
            found.rows.append(line | {"accuracy": mean, "accuracy_sd": deviation})
        below = 100 * (float(np.mean(theirs)) - float(np.mean(ours)))
        words = f"width {width:,}: below a real-valued projection in floating point, points"
        found.bars.append(Bar(words, below, NEAR, below <= NEAR))
        print(f"{data.name}: width {width} done", flush=True)
    return found


def integer(data: Set, width: int, seed: int) -> float:
    """`analytic` as it is."""
    before = model(data, width, seed)
    rows = rows_of(data, np.arange(len(data.y_train)), before)
    version = learn(before, rows, analytic.METHOD, analytic.AnalyticParams())
    return float((predict(version, on_grid(data.x_test, before)) == data.y_test).mean())


def floating(data: Set, width: int, seed: int) -> float:
    """The same ridge with an intercept on `max(0, x B)`, B Gaussian, in float64 throughout."""
    b = np.random.default_rng(seed).standard_normal((data.x_train.shape[1], width))
    x, test = (np.maximum(_unit(part) @ b, 0) for part in (data.x_train, data.x_test))
    middle = x.mean(axis=0)
    x -= middle
    targets = np.eye(data.classes)[data.y_train]
    gram = x.T @ x
    gram[np.diag_indices(width)] += 2.0**K * gram.trace() / width
    factor = cho_factor(gram, overwrite_a=True, check_finite=False)
    weight = cho_solve(factor, x.T @ (targets - targets.mean(axis=0)))
    scores: Matrix = (test - middle) @ weight + targets.mean(axis=0)
    return float((scores.argmax(axis=1) == data.y_test).mean())
