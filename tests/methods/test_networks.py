"""A network: checked before it is built, the same from the same seed, one row at a time as in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from app.methods import networks
from app.methods.networks import BadNetwork
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.features import embed
from app.methods.parts.grid import ExponentGrid

CONVNET = NetworkSpec(name="convnet", params={"channels": [8, 16]})
MLP = NetworkSpec(name="mlp", params={"hidden": [32, 16]})
IDENTITY = NetworkSpec(name="identity")


def image(*shape: int) -> InputSpec:
    return InputSpec(kind="image", shape=shape)


def vector(columns: int) -> InputSpec:
    return InputSpec(kind="vector", shape=(columns,))


def inputs(spec: InputSpec, rows: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    if spec.kind == "image":
        return rng.integers(0, 256, (rows, *spec.shape), dtype=np.uint8)
    return rng.standard_normal((rows, *spec.shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("spec", "form"),
    [
        *(
            (CONVNET, image(*shape))
            for shape in [(8, 8), (28, 28), (32, 32, 3), (1, 1), (5, 9, 1), (64, 48, 3)]
        ),
        (MLP, vector(20)),
        (MLP, InputSpec(kind="table", shape=(3,))),
        (IDENTITY, vector(20)),
        (IDENTITY, image(8, 8, 3)),
    ],
    ids=lambda value: value.name if isinstance(value, NetworkSpec) else f"{value.kind}{value.shape}",
)
def test_gives_width_features_a_row_whatever_the_batch(spec, form):
    network = networks.seeded_build(spec, form, 0).eval()
    x = torch.from_numpy(inputs(form))

    with torch.no_grad():
        together, alone = network(x), torch.cat([network(row[None]) for row in x])

    assert together.dtype == torch.float32
    assert together.shape == (6, networks.width(spec, form))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_one_channel_and_no_channel_axis_are_the_same_image():
    flat, deep = (networks.seeded_build(CONVNET, image(*shape), 3).eval() for shape in [(8, 8), (8, 8, 1)])
    x = torch.from_numpy(inputs(image(8, 8)))

    assert torch.equal(flat(x), deep(x.unsqueeze(-1)))


def test_starts_from_the_seed_alone():
    torch.manual_seed(1)
    first = networks.seeded_build(CONVNET, image(8, 8), 5).state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    untouched = torch.rand(1)
    second = networks.seeded_build(CONVNET, image(8, 8), 5).state_dict()
    other = networks.seeded_build(CONVNET, image(8, 8), 6).state_dict()

    assert after == untouched
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


@pytest.mark.parametrize(
    ("spec", "form", "field"),
    [
        (NetworkSpec(name="resnet"), image(8, 8), "/network/name"),
        (NetworkSpec(name="convnet"), vector(8), "/network/name"),
        (NetworkSpec(name="mlp"), image(8, 8), "/network/name"),
        (NetworkSpec(name="convnet", params={"channels": [8, 2]}), image(8, 8), "/network/params/channels/1"),
        (NetworkSpec(name="convnet", params={"chanels": [8]}), image(8, 8), "/network/params/chanels"),
        (NetworkSpec(name="identity", params={"width": 8}), vector(8), "/network/params/width"),
        (NetworkSpec(name="convnet", params={"channels": [1024] * 8}), image(8, 8), "/network/params"),
        (NetworkSpec(name="convnet", params={"channels": [512]}), image(256, 256), "/network/params"),
        (NetworkSpec(name="mlp", params={"hidden": [4096]}), vector(65_536), "/network/params"),
        (IDENTITY, image(512, 512), "/input/shape"),
    ],
)
def test_refuses_what_cannot_be_built_and_points_at_it(spec, form, field):
    with pytest.raises(BadNetwork) as refused:
        networks.build(spec, form)

    assert refused.value.field == field


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers.0.weight": None}, "'layers.0.weight' is missing"),
        ({"head.weight": torch.zeros(1)}, "'head.weight' is not one of its tensors"),
        ({"layers.0.weight": torch.zeros(8, 3, 3, 3)}, r"shape \[8, 3, 3, 3\], not \[8, 1, 3, 3\]"),
        ({"layers.1.bias": torch.zeros(8, dtype=torch.float64)}, "is float64, not float32"),
        ({"layers.1.bias": torch.full((8,), torch.nan)}, "not finite"),
    ],
)
def test_refuses_weights_of_another_network_by_name(change, words):
    weights = {**networks.build(CONVNET, image(8, 8)).state_dict(), **change}
    weights = {name: tensor for name, tensor in weights.items() if tensor is not None}

    with pytest.raises(BadNetwork, match=words) as refused:
        networks.check_weights(CONVNET, image(8, 8), weights)
    assert refused.value.field == "/network/weights"


def test_accepts_its_own_weights():
    weights = networks.seeded_build(CONVNET, image(8, 8), 0).state_dict()

    networks.check_weights(CONVNET, image(8, 8), weights)

    loaded = networks.load(CONVNET, image(8, 8), weights)
    assert not loaded.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_describes_every_parameter_and_bounds_it(name):
    architecture = networks.NETWORKS[name]
    for field in architecture.params.model_fields.values():
        assert field.description
        assert field.get_default() is not None
    with pytest.raises(ValidationError):
        architecture.params.model_validate({"unknown": 1})


def test_embeds_block_by_block_onto_the_grid_and_leaves_out_no_row():
    x = inputs(image(8, 8), rows=50)
    network = networks.seeded_build(CONVNET, image(8, 8), 0)

    blocks = list(embed(network, [x[:20], x[20:21], x[21:]], "normalised", batch=16))

    assert [len(block) for block in blocks] == [20, 1, 29]
    assert all(block.dtype == np.int16 for block in blocks)
    with torch.no_grad():
        reference = network.eval()(torch.from_numpy(x)).double().numpy()
    reference *= 2**13 / np.linalg.norm(reference, axis=1, keepdims=True)
    assert np.abs(np.concatenate(blocks) - reference).max() < 0.51


def test_embeds_vectors_without_a_network_exactly_and_counts_what_it_clips():
    x = np.array([[1.0, -2.5, 40_000.0], [0.5, 1.5, -40_000.0]], dtype=np.float32)
    clipped: list[int] = []

    (block,) = embed(
        networks.build(IDENTITY, vector(3)), [x], ExponentGrid(exponent=0), on_clipped=clipped.append
    )

    assert block.tolist() == [[1, -2, 32_767], [0, 2, -32_767]]
    assert clipped == [2]


def test_refuses_features_that_are_not_finite():
    network = networks.seeded_build(MLP, vector(4), 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1e30)

    with pytest.raises(ValueError, match="not finite"):
        list(embed(network, [inputs(vector(4))], "normalised"))
