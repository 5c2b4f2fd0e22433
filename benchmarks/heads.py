"""Heads that learn exactly, class by class: `python -m benchmarks.heads --data DIR`.

*orders*: 50 classes first, the others in ten updates, five orders; the version after every update of the
first order must have the digests of joint training on the same rows, and the last version those of every
order, or the run fails. *one by one*: the same with one class per update. *logistic*: joint logistic
regression, tuned on rows held out for it, and how far the heads stay below. *recursion* and *streaming*: the
published forms, ours beside them. *projection*: against a real-valued projection in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import bounds, recursion, sequence, streaming
from benchmarks.candidates import HEADS, Candidate, arriving, digests, learn, rows_of
from benchmarks.common import Bar, Row, at_least
from benchmarks.pretrained import figures, state_lines
from benchmarks.sequence import Trace
from benchmarks.sets import Labels, Set
from benchmarks.suite import Found, Given, main

ORDERS = range(5)
JOINT = ("analytic 5,000", "analytic 2,048", "lda 2,048", "lda", "naive_bayes")
TOO_SLOW = ("analytic 5,000",)  # one by one: a hundred of its solves would take longer than all the rest
BARS = {  # on clinc150, mean over the orders, in per cent
    ("analytic 5,000", "average"): 96.5,
    ("analytic 5,000", "last"): 94.8,
    ("lda 2,048", "average"): 95.0,
}


def orders(given: Given) -> Found:
    """Every head over five orders of the classes."""
    data = given.data
    traces: dict[str, list[Trace]] = {}
    for name, candidate in HEADS.items():
        traces[name], last = [], set()
        for seed in ORDERS:
            order = arriving(data, seed)
            trace, found = digested(data, order, candidate)
            if name in JOINT:
                if seed == ORDERS[0]:
                    equals_joint(data, order, candidate, found)
                last.add(found[-1])
            traces[name].append(trace)
        if len(last) > 1:
            raise SystemExit(f"{name}: the order of the classes changed the digest")
        print(f"{data.name}: {name} done", flush=True)
    return Found(lines(traces, data, len(order[0]), len(order) - 1), bars(traces, data))


def one_by_one(given: Given) -> Found:
    """One class per update, one order."""
    data = given.data
    order = arriving(data, ORDERS[0], one_by_one=True)
    traces = {}
    for name, candidate in HEADS.items():
        if name in TOO_SLOW:
            continue
        trace, found = digested(data, order, candidate)
        if name in JOINT and found[-1] != joint_digests(data, np.concatenate(order), candidate):
            raise SystemExit(f"{name}: another digest than joint training")
        traces[name] = [trace]
        print(f"{data.name}: {name} done", flush=True)
    return Found(lines(traces, data, len(order[0]), len(order) - 1)[: len(traces)])


def digested(data: Set, order: list[Labels], candidate: Candidate) -> tuple[Trace, list[tuple[str, str]]]:
    """A sequence, and the digests of statistics and head after every update."""
    found: list[tuple[str, str]] = []
    trace = sequence.run(
        candidate.model(data),
        data,
        order,
        candidate.method,
        candidate.params,
        lambda version: found.append(digests(version)),
    )
    return trace, found


def equals_joint(
    data: Set, order: list[Labels], candidate: Candidate, found: Sequence[tuple[str, str]]
) -> None:
    """Leave the run where a version differs by a byte from joint training on all rows so far."""
    for state, ours in enumerate(found):
        seen = np.concatenate(order[: state + 1])
        if joint_digests(data, seen, candidate) != ours:
            raise SystemExit(f"{candidate.method.name}, state {state}: another digest than joint training")


def joint_digests(data: Set, seen: Labels, candidate: Candidate) -> tuple[str, str]:
    """Of a version that learned all rows of these classes in one update, shuffled."""
    chosen = np.random.default_rng(len(seen)).permutation(np.flatnonzero(np.isin(data.y_train, seen)))
    before = candidate.model(data)
    return digests(learn(before, rows_of(data, chosen, before), candidate.method, candidate.params))


def lines(traces: dict[str, list[Trace]], data: Set, base: int, steps: int) -> list[Row]:
    methods: list[Row] = [
        {
            "table": "methods",
            "method": name,
            "orders": len(runs),
            **figures(runs),
            "seconds_per_update": float(np.mean([run.seconds for run in runs])),
            "equals_joint": name in JOINT,
        }
        for name, runs in traces.items()
    ]
    by_state = state_lines(traces, base, steps, data.classes)
    for line in by_state:
        line["first_order"] = traces[line["method"]][0].accuracy[line["state"]]
    return methods + [{"table": "states"} | line for line in by_state]


def bars(traces: dict[str, list[Trace]], data: Set) -> list[Bar]:
    """They are set for `clinc150`."""
    if data.name != "clinc150":
        return []
    return [
        at_least(
            f"{name}, {figure}", 100 * float(np.mean([getattr(run, figure) for run in traces[name]])), bar
        )
        for (name, figure), bar in BARS.items()
    ]


PARTS = {
    "orders": orders,
    "recursion": recursion.duel,
    "projection": bounds.projection,
    "logistic": bounds.logistic,
    "streaming": streaming.duel,
    "one by one": one_by_one,
}

if __name__ == "__main__":
    main("heads", __doc__, PARTS)
