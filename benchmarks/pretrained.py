"""Track *Pretrained*: embeddings as given, incremental heads on top, the published recipe as peer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.methods import BY_NAME
from app.methods.base import Method, Params, Snapshot
from app.methods.incremental import fetril, ncm
from app.methods.networks.spec import InputSpec, NetworkSpec
from benchmarks import sequence
from benchmarks.common import Bar, Row, at_least, mean_and_deviation, paired
from benchmarks.memory import in_child
from benchmarks.peer import Peer, learn_last
from benchmarks.sequence import Trace
from benchmarks.sets import Labels, Set, states

ORDERS = range(5)
REPEATS = 3  # of each of our updates beside one of the peer's
METHODS: dict[str, tuple[Method[Any], Any]] = {
    "fetril svm": (fetril.METHOD, fetril.FetrilParams(solver="svm")),
    "fetril softmax": (fetril.METHOD, fetril.FetrilParams(solver="softmax")),
    "fetril closed_form": (fetril.METHOD, fetril.FetrilParams(solver="closed_form")),
    "ncm": (ncm.METHOD, ncm.NcmParams()),
}
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Duel:
    """The sequence of seed 0, peer and ours in turns."""

    peer: Trace
    ours: Mapping[str, Trace]

    def agreement(self, name: str) -> list[float]:
        """Share of equal test predictions, state by state."""
        pairs = zip(self.peer.predicted, self.ours[name].predicted, strict=True)
        return [float((a == b).mean()) for a, b in pairs]

    def speed(self, name: str) -> float:
        return sum(self.peer.seconds) / sum(self.ours[name].seconds)


def empty_model(data: Set) -> Snapshot:
    spec = InputSpec(kind="vector", shape=data.x_train.shape[1:])
    return Snapshot(spec, "normalised", NetworkSpec(name="identity"))


def ticks(steps: int) -> int:
    """How often `run` calls its `tick`."""
    return (steps + 1) * (len(ORDERS) * len(METHODS) + 1) + len(METHODS) + 1


def run(data: Set, base: int, steps: int, tick: Tick) -> tuple[list[Row], list[Bar], dict[str, list[Row]]]:
    """All lines and bars of the track; the lines also by table."""
    met = duel(data, states(data.classes, base, steps, 0), tick)
    traces = {
        name: [
            sequence.run(
                empty_model(data),
                data,
                states(data.classes, base, steps, seed),
                method,
                params,
                lambda _: tick("orders"),
            )
            for seed in ORDERS
        ]
        for name, (method, params) in METHODS.items()
    }
    memory = peaks(data, states(data.classes, base, steps, 0), tick)
    common = {"track": "pretrained", "set": data.name}
    tables = {
        "methods": [common | line for line in method_lines(traces, met, memory)],
        "states": [common | line for line in state_lines(traces, base, steps, data.classes)],
        "peer": [common | line for line in duel_lines(met)],
        "difference": [common | against_ncm(traces)],
    }
    lines = [line for table in tables.values() for line in table]
    return lines, bars(traces, met, data.name), tables


def duel(data: Set, arriving: list[Labels], tick: Tick) -> Duel:
    """Every state: the peer once, then each of ours three times; medians."""
    peer, trace = Peer(data), Trace()
    ours = {name: Trace() for name in METHODS}
    versions = {name: empty_model(data) for name in METHODS}
    test = sequence.on_grid(data.x_test, empty_model(data))
    with tempfile.TemporaryDirectory() as name_of:
        folder = Path(name_of)
        for state, new in enumerate(arriving):
            seen = np.concatenate(arriving[: state + 1])
            judged = np.isin(data.y_test, seen)
            trace.seconds.append(peer.learn(new, folder))
            trace.judge(data, seen, peer.predict(data.x_test[judged]))
            for name, (method, params) in METHODS.items():
                runs = [
                    sequence.update(versions[name], data, new, method, params, folder) for _ in range(REPEATS)
                ]
                versions[name] = runs[0][0]
                ours[name].seconds.append(float(np.median([seconds for _, seconds in runs])))
                ours[name].judge(data, seen, sequence.predict(versions[name], test[judged]))
            tick("peer and ours in turns")
    return Duel(trace, ours)


def peaks(data: Set, arriving: list[Labels], tick: Tick) -> dict[str, float]:
    """Peak memory in MB over the data itself, each in a process of its own; of the peer its last update."""
    found = {}
    for name, (method, params) in METHODS.items():
        _, found[name] = in_child(_sequence, data, arriving, method.name, params)
        tick("memory")
    with tempfile.TemporaryDirectory() as folder:
        _, found["peer"] = in_child(learn_last, data, arriving, Path(folder))
    tick("memory")
    return found


def _sequence(data: Set, arriving: list[Labels], name: str, params: Params) -> float:
    method: Method[Any] = BY_NAME[name]
    return sequence.run(empty_model(data), data, arriving, method, params).last


def method_lines(traces: Mapping[str, list[Trace]], met: Duel, memory: Mapping[str, float]) -> list[Row]:
    lines = [
        {
            "method": name,
            "orders": len(runs),
            **figures(runs),
            "seconds_per_update": float(np.mean(met.ours[name].seconds)),
            "peak_mb": memory[name],
        }
        for name, runs in traces.items()
    ]
    peer = {
        "method": "peer",
        "orders": 1,
        **figures([met.peer]),
        "seconds_per_update": float(np.mean(met.peer.seconds)),
        "peak_mb": memory["peer"],
    }
    return [*lines, peer]


def figures(runs: list[Trace]) -> Row:
    """Average, last and forgetting, mean and standard deviation over class orders."""
    line: Row = {}
    for name in ("average", "last", "forgetting"):
        line[name], line[f"{name}_sd"] = mean_and_deviation([getattr(run, name) for run in runs])
    return line


def state_lines(traces: Mapping[str, list[Trace]], base: int, steps: int, classes: int) -> list[Row]:
    known = np.cumsum([len(new) for new in states(classes, base, steps, 0)])
    lines = []
    for name, runs in traces.items():
        for state, count in enumerate(known):
            mean, deviation = mean_and_deviation([run.accuracy[state] for run in runs])
            seconds = float(np.median([run.seconds[state] for run in runs]))
            line = {"method": name, "state": state, "classes": int(count)}
            lines.append(line | {"accuracy": mean, "accuracy_sd": deviation, "seconds": seconds})
    return lines


def duel_lines(met: Duel) -> list[Row]:
    svm, agreement = met.ours["fetril svm"], met.agreement("fetril svm")
    return [
        {
            "method": "svm against the peer, seed 0",
            "state": state,
            "peer_accuracy": met.peer.accuracy[state],
            "svm_accuracy": svm.accuracy[state],
            "agreement": agreement[state],
            "peer_seconds": met.peer.seconds[state],
            "svm_seconds": svm.seconds[state],
            "closed_form_seconds": met.ours["fetril closed_form"].seconds[state],
        }
        for state in range(len(svm.accuracy))
    ]


def bars(traces: Mapping[str, list[Trace]], met: Duel, name: str) -> list[Bar]:
    """They are set for the set that takes the peer minutes; on small ones it has little to lose."""
    if name != "clinc150":
        return []

    def mean(method: str, figure: str) -> float:
        return 100 * float(np.mean([getattr(run, figure) for run in traces[method]]))

    below = {f: mean("fetril svm", f) - mean("fetril closed_form", f) for f in ("average", "last")}
    agreement = min(met.agreement("fetril svm"))
    return [
        at_least(f"{name}: svm agrees with the peer, least of all states", agreement, 0.99),
        at_least(f"{name}: svm faster than the peer, whole sequence", met.speed("fetril svm"), 30),
        at_least(f"{name}: closed_form faster than the peer", met.speed("fetril closed_form"), 100),
        *(
            Bar(f"{name}: closed_form below svm, {figure}, points", value, 0.2, value <= 0.2)
            for figure, value in below.items()
        ),
    ]


def against_ncm(traces: Mapping[str, list[Trace]]) -> Row:
    """The difference of closed_form to ncm in points, and its paired interval."""
    ours, theirs = ([100 * run.average for run in traces[name]] for name in ("fetril closed_form", "ncm"))
    return {"method": "closed_form - ncm, average, points", **paired(ours, theirs)}
