"""Track *From base classes*: a network trained here on the first classes only, and heads that follow."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from app.methods import networks
from app.methods.base import Context, Head, Method, Params, Rows, Snapshot, Split
from app.methods.incremental import fetril, ncm, supervised
from app.methods.incremental.supervised import SupervisedParams
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.augment import Jitter
from app.methods.parts.features import embed
from app.methods.parts.training import batches, optimizer_of, set_lr
from benchmarks import sequence
from benchmarks.common import Bar, Row, above, mean_and_deviation, paired
from benchmarks.memory import in_child
from benchmarks.pretrained import figures
from benchmarks.sequence import Trace, key, predict
from benchmarks.sets import Labels, Set, states

ORDERS = range(5)
# Chosen on a fifth of the training rows of two other class orders, by the average accuracy of fetril.
TRAINING = {
    "mnist10k": SupervisedParams(epochs=10),
    "omniglot_small1": SupervisedParams(epochs=30),
    "digits": SupervisedParams(epochs=10),
}
TUNING_EPOCHS, TUNING_LR = 20, 0.01  # of fine-tuning, at every step
COST = {"mnist10k": 0.1}  # C of the svm, chosen in the same way; elsewhere the paper's 1
NAMES = (
    "fetril",
    "fetril softmax",
    "fetril closed_form",
    "ncm",
    "svm without translation",
    "fine-tuning",
)
Tick = Callable[[str], None]
T = TypeVar("T")


def ticks() -> int:
    """How often `run` calls its `tick`."""
    return len(ORDERS) * (1 + len(NAMES)) + 1


def run(data: Set, base: int, steps: int, tick: Tick) -> tuple[list[Row], list[Bar], dict[str, list[Row]]]:
    """All lines and bars of the track on one set; the lines also by table."""
    traces: dict[str, list[Trace]] = {name: [] for name in NAMES}
    memory: dict[str, float] = {}
    training = []
    for seed in ORDERS:
        arriving = states(data.classes, base, steps, seed)
        (first, seconds), memory["base training"] = _once_in_child(
            seed, memory, "base training", train, data, arriving[0], seed
        )
        training.append(seconds)
        tick(f"network, order {seed}")
        features = embedded(data, first)
        for name in NAMES:
            work = fine_tune if name == "fine-tuning" else head_sequence
            given = (
                (data, first, arriving, seed) if name == "fine-tuning" else (features, first, arriving, name)
            )
            trace, memory[name] = _once_in_child(seed, memory, name, work, *given)
            traces[name].append(trace)
            tick(f"{name}, order {seed}")
    every = np.arange(data.classes)
    (joint, joint_seconds), joint_peak = in_child(train, data, every, 0)
    joint_accuracy = float(
        (predict(joint, embedded(data, joint).x_test.astype(np.int16)) == data.y_test).mean()
    )
    tick("joint training")
    common = {"track": "from base classes", "set": data.name}
    lines = [
        {
            "method": name,
            "orders": len(runs),
            **figures(runs),
            "seconds_per_update": _seconds(runs),
            "peak_mb": memory[name],
        }
        for name, runs in traces.items()
    ]
    lines.append(
        {
            "method": "base training",
            "orders": len(training),
            "seconds_per_update": float(np.mean(training)),
            "peak_mb": memory["base training"],
        }
    )
    lines.append(
        {
            "method": "joint training",
            "orders": 1,
            "last": joint_accuracy,
            "seconds_per_update": joint_seconds,
            "peak_mb": joint_peak,
        }
    )
    tables = {
        "methods": [common | line for line in lines],
        "states": [common | line for line in state_lines(traces, base, steps, data.classes)],
        "differences": [
            common | {"method": f"fetril - {name}, average, points", **difference(traces, name)}
            for name in NAMES[1:]
        ],
    }
    return [line for table in tables.values() for line in table], bars(traces, data.name), tables


def _once_in_child(
    seed: int, memory: Mapping[str, float], name: str, work: Callable[..., T], *given: Any
) -> tuple[T, float]:
    """The first order runs in a process of its own, for its peak memory; the others here."""
    return in_child(work, *given) if seed == ORDERS[0] else (work(*given), memory[name])


def _rows(data: Set, new: Labels) -> Rows:
    new = np.sort(new)
    chosen = np.isin(data.y_train, new)
    x = data.x_train[chosen]
    return Rows(tuple(map(key, new)), np.searchsorted(new, data.y_train[chosen]), lambda: iter([x]))


def train(data: Set, classes: Labels, seed: int) -> tuple[Snapshot, float]:
    """Network and head on some classes, and the seconds it took."""
    spec = InputSpec(kind="image", shape=data.x_train.shape[1:])
    empty = Snapshot(spec, "normalised", NetworkSpec(name="convnet"))
    params = TRAINING.get(data.name, SupervisedParams())
    started = time.perf_counter()
    after = supervised.METHOD.run(empty, {Split.NEW: _rows(data, classes)}, params, Context(seed=seed)).after
    return after, time.perf_counter() - started


def embedded(data: Set, version: Snapshot) -> Set:
    """The set as grid features of the version's network."""
    network = networks.load(version.network, version.input, version.weights)
    train_rows, test_rows = embed(network, [data.x_train, data.x_test], version.grid)
    return replace(data, x_train=train_rows, x_test=test_rows)


def heads(data: Set) -> dict[str, tuple[Method[Any], Params]]:
    """By their names, with the parameters for this set."""
    return {
        "fetril": (fetril.METHOD, fetril.FetrilParams(C=COST.get(data.name, 1.0))),
        "fetril softmax": (fetril.METHOD, fetril.FetrilParams(solver="softmax")),
        "fetril closed_form": (fetril.METHOD, fetril.FetrilParams(solver="closed_form")),
        "ncm": (ncm.METHOD, ncm.NcmParams()),
    }


def head_sequence(features: Set, first: Snapshot, arriving: list[Labels], name: str) -> Trace:
    """A head over frozen features, from the first classes on."""
    bare = replace(first, classes=(), centroids={}, head=None)
    if name == "svm without translation":
        return untranslated(features, bare, arriving)
    return sequence.run(bare, features, arriving, *heads(features)[name])


def untranslated(features: Set, bare: Snapshot, arriving: list[Labels]) -> Trace:
    """One SVM per class against the other classes of its own update; never touched again (DeeSIL)."""
    trace, version, test = Trace(), bare, sequence.on_grid(features.x_test, bare)
    with tempfile.TemporaryDirectory() as folder:
        for state, new in enumerate(arriving):
            alone, seconds = sequence.update(bare, features, new, *heads(features)["fetril"], Path(folder))
            version = _beside(version, alone)
            seen = np.concatenate(arriving[: state + 1])
            trace.seconds.append(seconds)
            trace.judge(features, seen, predict(version, test[np.isin(features.y_test, seen)]))
    return trace


def _beside(old: Snapshot, new: Snapshot) -> Snapshot:
    """One head with the classes of both, whose order here is that of arrival."""
    if old.head is None or new.head is None:
        return new
    head = Head(
        torch.cat([old.head.weight, new.head.weight]),
        torch.cat([old.head.bias, new.head.bias]),
        normalise=True,
    )
    return replace(old, classes=old.classes + new.classes, head=head)


def fine_tune(data: Set, first: Snapshot, arriving: list[Labels], seed: int) -> Trace:
    """Network and head go on with the new rows alone, the head a row longer for every class."""
    network = networks.load(first.network, first.input, first.weights)
    assert first.head is not None
    weight, bias = first.head.weight.clone(), first.head.bias.clone()
    trace, known = Trace(), np.sort(arriving[0])
    for state, new in enumerate(arriving):
        started = time.perf_counter()
        if state:
            known = np.concatenate([known, new])
            weight = torch.cat([weight, torch.zeros(len(new), weight.shape[1])])
            bias = torch.cat([bias, torch.zeros(len(new))])
            weight, bias = _tune(network, weight, bias, data, new, known, seed)
        trace.seconds.append(time.perf_counter() - started)
        chosen = np.isin(data.y_test, known)
        (features,) = embed(network, [data.x_test[chosen]], first.grid)
        scores = F.normalize(torch.tensor(features, dtype=torch.float32)) @ weight.T + bias
        trace.judge(data, known, known[scores.argmax(dim=1).numpy()])
    return trace


def _tune(
    network: torch.nn.Module,
    weight: torch.Tensor,
    bias: torch.Tensor,
    data: Set,
    new: Labels,
    known: Labels,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and augmentation of `supervised`, at a tenth of its learning rate."""
    chosen = np.isin(data.y_train, new)
    place = {int(c): i for i, c in enumerate(known)}
    x = torch.from_numpy(data.x_train[chosen])
    y = torch.tensor([place[int(c)] for c in data.y_train[chosen]])
    head = torch.nn.Linear(weight.shape[1], len(weight))
    params = SupervisedParams()
    with torch.no_grad():
        head.weight.copy_(weight / params.scale)
        head.bias.copy_(bias)
    jitter = Jitter(params.shift, params.rotate, params.zoom, params.flip)
    model = torch.nn.ModuleDict({"network": network, "head": head}).train()
    optimizer = optimizer_of(model, TUNING_LR, params.momentum, params.weight_decay)
    for epoch in range(TUNING_EPOCHS):
        rng = np.random.default_rng((seed, len(known), epoch))
        parts = batches(len(y), params.batch_size, rng)
        for step, batch in enumerate(parts, start=epoch * len(parts)):
            set_lr(optimizer, TUNING_LR, step, len(parts), TUNING_EPOCHS * len(parts))
            features = params.scale * F.normalize(network(jitter(x[batch], rng)))
            loss = F.cross_entropy(head(features), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.weight.detach() * params.scale, head.bias.detach().clone()


def _seconds(runs: list[Trace]) -> float:
    return float(np.mean([run.seconds[1:] for run in runs]))


def state_lines(traces: Mapping[str, list[Trace]], base: int, steps: int, classes: int) -> list[Row]:
    known = np.cumsum([len(new) for new in states(classes, base, steps, 0)])
    lines = []
    for name, runs in traces.items():
        for state, count in enumerate(known):
            mean, deviation = mean_and_deviation([run.accuracy[state] for run in runs])
            lines.append(
                {
                    "method": name,
                    "state": state,
                    "classes": int(count),
                    "accuracy": mean,
                    "accuracy_sd": deviation,
                }
            )
    return lines


def difference(traces: Mapping[str, list[Trace]], name: str) -> dict[str, float]:
    ours, theirs = ([100 * run.average for run in traces[n]] for n in ("fetril", name))
    return paired(ours, theirs)


def bars(traces: Mapping[str, list[Trace]], set_name: str) -> list[Bar]:
    names = ["fine-tuning", "svm without translation", *(["ncm"] if set_name == "mnist10k" else [])]
    return [
        above(
            f"{set_name}, from base classes: fetril above {name}, average, lower end in points",
            difference(traces, name)["low"],
            0.0,
        )
        for name in names
    ]
