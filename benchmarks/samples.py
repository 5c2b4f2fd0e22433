"""Heads by the number of rows per class: `python -m benchmarks.samples --data DIR`.

Zheng et al. (ICML 2023) claim that a generative head comes near its limit with far fewer rows than a
discriminative one, whose limit is better. So naive Bayes beside ridge regression and logistic regression on
the same features, and where their lines cross. C of logistic regression is chosen on held-out rows.
"""

from __future__ import annotations

import numpy as np

from benchmarks.bounds import tuned
from benchmarks.candidates import HEADS, learn, rows_of
from benchmarks.common import Row, mean_and_deviation
from benchmarks.sequence import on_grid, predict
from benchmarks.sets import Labels, Set
from benchmarks.suite import Found, Given, main

COUNTS = (2, 3, 5, 10, 20, 50)
DRAWS = range(3)
GENERATIVE, DISCRIMINATIVE = "naive_bayes", ("analytic 2,048", "logistic")
NAMES = ("naive_bayes", "ncm", "lda", "analytic 2,048")


def crossover(given: Given) -> Found:
    """Mean test accuracy over draws of the rows, and the least number at which another head is ahead."""
    found = Found()
    fewest = int(np.bincount(given.data.y_train).min())
    for count in (count for count in COUNTS if count <= fewest):
        line: Row = {"table": "accuracy", "rows_per_class": count}
        for name, runs in judged(given, count).items():
            line[name], line[f"{name}_sd"] = mean_and_deviation(runs)
        found.rows.append(line)
        print(f"{given.data.name}: {count} rows per class done", flush=True)
    lines = list(found.rows)
    found.rows += [
        {"table": "crossover", "head": name, "ahead_of_naive_bayes_from": ahead(lines, name)}
        for name in DISCRIMINATIVE
    ]
    return found


def judged(given: Given, count: int) -> dict[str, list[float]]:
    accuracy: dict[str, list[float]] = {name: [] for name in (*NAMES, "logistic")}
    for draw in DRAWS:
        data = few(given.data, count, draw)
        for name in NAMES:
            candidate = HEADS[name]
            before = candidate.model(data)
            rows = rows_of(data, np.arange(len(data.y_train)), before)
            version = learn(before, rows, candidate.method, candidate.params)
            guessed = predict(version, on_grid(data.x_test, before))
            accuracy[name].append(float((guessed == data.y_test).mean()))
        accuracy["logistic"].append(tuned(data, few(given.choose, count, draw))[1])
    return accuracy


def few(data: Set, count: int, draw: int) -> Set:
    """`count` training rows of each class, or all that there are."""
    source = np.random.default_rng([draw, count])
    chosen: Labels = np.concatenate(
        [source.permutation(np.flatnonzero(data.y_train == c))[:count] for c in range(data.classes)]
    )
    return Set(data.name, data.x_train[chosen], data.y_train[chosen], data.x_test, data.y_test)


def ahead(lines: list[Row], name: str) -> int | None:
    """The least number of rows from which on the head stays ahead of naive Bayes; None where it does not."""
    first = None
    for line in lines:
        if line[name] <= line[GENERATIVE]:
            first = None
        elif first is None:
            first = int(line["rows_per_class"])
    return first


if __name__ == "__main__":
    main("samples", __doc__, {"crossover": crossover})
