"""What every method promises. A method is tested here by being listed in `app.methods`."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from app import methods
from app.methods.base import Cancelled, Centroid, Context, Kind, Progress, Snapshot, Task
from app.methods.parts.statistics import from_arrays
from tests.methods.conftest import predict

EVERY = methods.ALL
each_method = pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
each_update = pytest.mark.parametrize(
    "method",
    [m for m in EVERY if m.kind is Kind.UPDATE and Task.CLASSIFICATION in m.tasks],
    ids=lambda m: m.name,
)


def tensors_of(version: Snapshot) -> dict[str, torch.Tensor]:
    """Everything numeric that a version holds."""
    tensors = {f"weights/{name}": tensor for name, tensor in version.weights.items()}
    for name, centroid in version.centroids.items():
        tensors[f"sum/{name}"] = torch.tensor(centroid.sum)
        tensors[f"count/{name}"] = torch.tensor(centroid.count)
    if version.head is not None:
        tensors |= {"head/weight": version.head.weight, "head/bias": version.head.bias}
    if version.statistics is not None:
        arrays = version.statistics.arrays()
        tensors |= {f"statistics/{name}": torch.tensor(array) for name, array in arrays.items()}
    return tensors


def bytes_of(version: Snapshot) -> bytes:
    return save(tensors_of(version))


@each_method
def test_works_with_its_defaults_and_is_seeded(method, toy):
    problem = toy(method)

    first, second = (
        method.run(problem.before, problem.data, method.params(), Context(seed=3)) for _ in range(2)
    )

    assert bytes_of(first.after) == bytes_of(second.after)
    assert first.report == second.report


@each_method
def test_leaves_its_inputs_and_the_global_generators_alone(method, toy):
    problem = toy(method)
    before = bytes_of(problem.before)
    rows = {split: (r.load().tobytes(), r.labels.tobytes()) for split, r in problem.data.items()}
    generators = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tobytes()

    method.run(problem.before, problem.data, method.params(), Context())

    assert bytes_of(problem.before) == before
    assert {split: (r.load().tobytes(), r.labels.tobytes()) for split, r in problem.data.items()} == rows
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.random.get_state(legacy=False)["state"]["key"].tobytes() == generators[1]


@each_method
def test_describes_and_bounds_every_parameter(method):
    for name, field in method.params.model_json_schema().get("properties", {}).items():
        assert field.get("description", "").endswith("."), name
        assert "default" in field, name
        bounded = {"enum", "const"} & field.keys() or field["type"] == "boolean"
        low = {"minimum", "exclusiveMinimum"} & field.keys()
        high = {"maximum", "exclusiveMaximum"} & field.keys()
        assert bounded or (low and high), name


@each_method
def test_says_what_it_is(method):
    assert method.summary.endswith(".")
    assert method.source
    assert method.needs
    assert [m.name for m in EVERY].count(method.name) == 1


@each_method
def test_reports_progress_that_rises_to_its_total(method, toy):
    problem, heard = toy(method), list[Progress]()

    method.run(problem.before, problem.data, method.params(), Context(on_progress=heard.append))

    assert len({p.total for p in heard}) == 1
    assert all(a.done <= b.done for a, b in pairwise(heard))
    assert heard[-1].done == heard[-1].total > heard[0].done


@each_method
@pytest.mark.parametrize("after", [0, 3])
def test_stops_when_told(method, toy, after):
    problem, heard = toy(method), list[Progress]()

    def refuse(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) > after:
            raise Cancelled

    with pytest.raises(Cancelled):
        method.run(problem.before, problem.data, method.params(), Context(on_progress=refuse))
    assert len(heard) == after + 1


@each_method
def test_gives_an_outcome_that_survives_being_stored(method, toy):
    problem = toy(method)
    after = method.run(problem.before, problem.data, method.params(), Context()).after

    stored = load(bytes_of(after))
    restored = replace(
        after,
        weights={name: stored[f"weights/{name}"] for name in after.weights},
        head=replace(after.head, weight=stored["head/weight"], bias=stored["head/bias"]),
        statistics=None
        if after.statistics is None
        else from_arrays({name: stored[f"statistics/{name}"].numpy() for name in after.statistics.arrays()}),
        centroids={
            name: Centroid(stored[f"sum/{name}"].numpy(), int(stored[f"count/{name}"]))
            for name in after.classes
        },
    )

    assert bytes_of(restored) == bytes_of(after)
    assert predict(restored, problem.inputs) == predict(after, problem.inputs)


@each_update
def test_finds_the_new_classes_and_keeps_the_old(method, toy):
    problem = toy(method)

    after = method.run(problem.before, problem.data, method.params(), Context()).after

    assert min(problem.found(after).values()) >= 0.9


@each_update
def test_lists_old_and_new_classes_in_byte_order_with_exact_centroids(method, toy):
    problem = toy(method)

    after = method.run(problem.before, problem.data, method.params(), Context()).after

    given = {name for rows in problem.data.values() for name in rows.classes}
    assert after.classes == tuple(sorted({*problem.before.classes, *given}, key=str.encode))
    assert after.head.weight.shape[0] == after.head.bias.shape[0] == len(after.classes)
    assert after.head.weight.dtype == after.head.bias.dtype == torch.float32
    assert set(after.centroids) == set(after.classes)
    for name in problem.before.classes:
        assert np.array_equal(after.centroids[name].sum, problem.before.centroids[name].sum)
