"""`supervised`: learns real digits, resumes to the same bytes, publishes the classifier that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from app.methods import networks
from app.methods.base import Context, Progress, Rows, Snapshot, Split, Unfit
from app.methods.incremental.supervised import METHOD, SupervisedParams
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.features import embed
from app.methods.parts.grid import ExponentGrid, Grid
from app.methods.parts.scoring import Scorer

QUICK = SupervisedParams(epochs=3, turns=False)
SMALL = NetworkSpec(name="convnet", params={"channels": [8, 16]})


class Memory:
    """A checkpoint that remembers the latest state."""

    def __init__(self) -> None:
        self.state: Mapping[str, torch.Tensor] | None = None

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        self.state = state

    def load(self) -> Mapping[str, torch.Tensor] | None:
        return self.state


class Killed(Exception):
    """What a lost worker looks like from the inside."""


def rows_of(x: np.ndarray, y: np.ndarray) -> Rows:
    """Read-only blocks of 100 rows, as a store would hand them out."""
    x.flags.writeable = y.flags.writeable = False
    classes = tuple(str(label) for label in np.unique(y))
    return Rows(classes, y, lambda: (x[i : i + 100] for i in range(0, len(x), 100)))


def digits(count: int, below: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` of the shuffled digits under `below`, uint8 (rows, 8, 8), and the labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(np.flatnonzero(data.target < below))[:count]
    return (data.images[order] * 15).astype(np.uint8), data.target[order].astype(np.int64)


def a_model(
    network: NetworkSpec = SMALL, grid: Grid = "normalised", shape: tuple[int, ...] = (8, 8)
) -> Snapshot:
    kind = "image" if network.name == "convnet" else "vector"
    return Snapshot(InputSpec.model_validate({"kind": kind, "shape": shape}), grid, network)


def predict(version: Snapshot, x: np.ndarray) -> np.ndarray:
    assert version.head is not None
    network = networks.load(version.network, version.input, version.weights)
    (features,) = embed(network, [x], version.grid)
    return Scorer(version.head, version.grid)(features)


def bytes_of(version: Snapshot) -> dict[str, bytes]:
    assert version.head is not None
    tensors = {**version.weights, "weight": version.head.weight, "bias": version.head.bias}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} | {
        key: centroid.sum.tobytes() for key, centroid in version.centroids.items()
    }


@pytest.fixture(scope="module")
def few() -> Rows:
    return rows_of(*digits(150))


def test_learns_digits_with_its_defaults():
    x, y = digits(900)
    train, held_out = rows_of(x[:400], y[:400]), (x[400:], y[400:])

    after = METHOD.run(
        a_model(NetworkSpec(name="convnet")), {Split.NEW: train}, SupervisedParams(epochs=10), Context()
    ).after

    assert after.classes == ("0", "1", "2", "3", "4")
    assert (predict(after, held_out[0]).argmax(axis=1) == held_out[1]).mean() >= 0.98


def test_learns_columns_of_very_different_units():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = (rng.standard_normal((600, 4)) + 3.0 * np.eye(3, 4)[y]) * np.array([1e-3, 1.0, 1e4, 1.0])
    x = x.astype(np.float32)
    model = a_model(NetworkSpec(name="mlp", params={"hidden": [32]}), ExponentGrid(exponent=-8), (4,))

    after = METHOD.run(
        model, {Split.NEW: rows_of(x[:400], y[:400])}, SupervisedParams(epochs=20), Context()
    ).after

    assert (predict(after, x[400:]).argmax(axis=1) == y[400:]).mean() > 0.9


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resumes_after_a_lost_worker_to_the_same_bytes(few, stop_after):
    whole = METHOD.run(a_model(), {Split.NEW: few}, QUICK, Context(seed=4))
    memory = Memory()

    def die_in_next_epoch(progress: Progress) -> None:
        if progress.done > stop_after * len(few.labels):
            raise Killed

    with pytest.raises(Killed):
        METHOD.run(
            a_model(),
            {Split.NEW: few},
            QUICK,
            Context(seed=4, on_progress=die_in_next_epoch, checkpoint=memory),
        )
    seen: list[Progress] = []
    resumed = METHOD.run(
        a_model(), {Split.NEW: few}, QUICK, Context(seed=4, on_progress=seen.append, checkpoint=memory)
    )

    assert seen[0].done > stop_after * len(few.labels)
    assert bytes_of(resumed.after) == bytes_of(whole.after)
    assert resumed.report == whole.report


def test_same_seed_same_bytes_and_another_seed_others(few):
    run = [METHOD.run(a_model(), {Split.NEW: few}, QUICK, Context(seed=s)).after for s in (1, 1, 2)]

    assert bytes_of(run[0]) == bytes_of(run[1])
    assert bytes_of(run[0])["weight"] != bytes_of(run[2])["weight"]


@pytest.mark.parametrize("grid", ["normalised", ExponentGrid(exponent=-10)], ids=str)
def test_publishes_the_trained_classifier_up_to_the_grid(few, grid):
    params = SupervisedParams(epochs=2, turns=False, scale=5.0)
    memory = Memory()
    after = METHOD.run(a_model(grid=grid), {Split.NEW: few}, params, Context(checkpoint=memory)).after
    assert memory.state is not None
    network = networks.load(after.network, after.input, after.weights)
    with torch.no_grad():
        features = network(torch.from_numpy(few.load())).double()
        if grid == "normalised":
            features = 5.0 * F.normalize(features)
    trained = (
        features @ memory.state["model.head.weight"].double().T + memory.state["model.head.bias"].double()
    )

    np.testing.assert_allclose(predict(after, few.load()), trained.numpy(), atol=0.01)


def test_centroids_are_integer_sums_of_the_features_as_they_are_served(few):
    after = METHOD.run(a_model(), {Split.NEW: few}, SupervisedParams(epochs=1), Context()).after

    network = networks.load(after.network, after.input, after.weights)
    (features,) = embed(network, [few.load()], after.grid)
    for index, key in enumerate(few.classes):
        own = features[few.labels == index].astype(np.int64)
        assert after.centroids[key].count == len(own)
        assert np.abs(after.centroids[key].sum - own.sum(axis=0)).max() <= len(own)


def test_turned_images_are_no_classes_of_the_version(few):
    after = METHOD.run(a_model(), {Split.NEW: few}, SupervisedParams(epochs=1), Context()).after

    assert after.head is not None
    assert after.head.weight.shape == (5, 16)
    assert after.head.bias.shape == (5,)


def test_starts_from_the_weights_that_the_model_was_created_with(few):
    given = networks.seeded_build(SMALL, a_model().input, 99).state_dict()
    still = SupervisedParams(epochs=1, lr=1e-6, turns=False)

    after = METHOD.run(replace(a_model(), weights=given), {Split.NEW: few}, still, Context()).after

    torch.testing.assert_close(after.weights["layers.0.weight"], given["layers.0.weight"], atol=1e-3, rtol=0)


def test_changes_nothing_that_it_is_given(few):
    given = networks.seeded_build(SMALL, a_model().input, 99).state_dict()
    copies = {name: tensor.clone() for name, tensor in given.items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    METHOD.run(replace(a_model(), weights=given), {Split.NEW: few}, QUICK, Context())

    assert torch.rand(1) == expected
    assert all(torch.equal(given[name], copies[name]) for name in given)


def test_progress_only_grows_and_ends_at_the_total(few):
    seen: list[Progress] = []

    METHOD.run(a_model(), {Split.NEW: few}, QUICK, Context(on_progress=seen.append))

    assert all(a.done < b.done for a, b in pairwise(seen))
    assert seen[-1].done == seen[-1].total
    assert {"loss", "accuracy"} <= seen[0].metrics.keys()


def test_refuses_a_model_that_knows_classes(few):
    first = METHOD.run(a_model(), {Split.NEW: few}, SupervisedParams(epochs=1, turns=False), Context()).after

    with pytest.raises(Unfit, match="first version") as refused:
        METHOD.run(first, {Split.NEW: few}, QUICK, Context())
    assert refused.value.field == "/method/name"


def test_refuses_a_model_without_a_network_and_says_what_to_do():
    x, y = np.ones((4, 3), dtype=np.float32), np.array([0, 0, 1, 1])

    with pytest.raises(Unfit, match="use ncm or fetril"):
        METHOD.run(
            a_model(NetworkSpec(name="identity"), shape=(3,)), {Split.NEW: rows_of(x, y)}, QUICK, Context()
        )


def test_refuses_a_single_class():
    x, y = digits(20, below=1)

    with pytest.raises(Unfit, match="two classes") as refused:
        METHOD.run(a_model(), {Split.NEW: rows_of(x, y)}, QUICK, Context())
    assert refused.value.field == "/datasets"


def test_refuses_a_step_that_would_not_fit_into_memory():
    rows = rows_of(np.zeros((4, 96, 96), dtype=np.uint8), np.array([0, 0, 1, 1]))
    model = a_model(NetworkSpec(name="convnet", params={"channels": [64, 64]}), shape=(96, 96))

    with pytest.raises(Unfit, match="lower batch_size") as refused:
        METHOD.run(model, {Split.NEW: rows}, SupervisedParams(batch_size=1_024), Context())
    assert refused.value.field == "/method/params/batch_size"


def test_says_so_when_training_diverges():
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    model = a_model(NetworkSpec(name="mlp"), ExponentGrid(exponent=-8), (4,))

    with pytest.raises(Unfit, match="diverged") as refused:
        METHOD.run(
            model,
            {Split.NEW: rows_of(x, np.arange(64) % 2)},
            SupervisedParams(epochs=500, lr=10, momentum=0.99, weight_decay=1.0),
            Context(),
        )
    assert refused.value.field == "/method/params/lr"


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 9)])
def test_trains_on_colour_and_on_images_that_are_not_square(shape):
    x = np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)
    rows = rows_of(x, np.arange(40) % 2)

    after = METHOD.run(
        a_model(shape=shape), {Split.NEW: rows}, SupervisedParams(epochs=1, flip=True), Context()
    ).after

    assert predict(after, x).shape == (40, 2)
