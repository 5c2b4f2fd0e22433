"""The networks by name, and what a request that names one is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from app.methods.networks import convnet, identity, mlp
from app.methods.networks.architecture import Architecture, NetworkParams
from app.methods.networks.identity import Identity
from app.methods.networks.spec import InputSpec, NetworkSpec

NETWORKS: dict[str, Architecture[Any]] = {
    network.name: network for network in (identity.ARCHITECTURE, mlp.ARCHITECTURE, convnet.ARCHITECTURE)
}

# What passes these fits into a worker's memory; a method that trains also bounds rows times activations.
MAX_PARAMETERS = 20_000_000
MAX_ACTIVATIONS = 3_000_000  # values that one row leaves behind, over all layers
MAX_WIDTH = 65_536  # features


class BadNetwork(ValueError):
    """The request names a network that cannot be built. `field` points at what to change."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


def build(spec: NetworkSpec, input: InputSpec) -> nn.Module:
    """The module of `spec` for inputs of this form, with PyTorch's own random initial weights.

    Raises `BadNetwork` for an unknown name, parameters out of bounds, inputs that it cannot read, and
    networks too large for a worker; nothing of that size is allocated to find out.
    """
    architecture, params = _checked(spec, input)
    with torch.device("meta"):
        _check_size(architecture.build(params, input), input)
    return architecture.build(params, input)


def warm_up() -> None:
    """Have PyTorch load what it loads with the first network: about a second in which nothing else runs."""
    build(NetworkSpec(name=mlp.ARCHITECTURE.name), InputSpec(kind="vector", shape=(2,)))


def seeded_build(spec: NetworkSpec, input: InputSpec, seed: int) -> nn.Module:
    """`build` with initial weights that depend on `seed` alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec, input)


def load(spec: NetworkSpec, input: InputSpec, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network of a version, in eval mode: the feature map before the grid."""
    network = build(spec, input)
    network.load_state_dict(dict(weights))
    return network.eval()


def width(spec: NetworkSpec, input: InputSpec) -> int:
    """How many features a row has."""
    architecture, params = _checked(spec, input)
    return int(architecture.width(params, input))


def activations(spec: NetworkSpec, input: InputSpec) -> int:
    """How many float32 values one row leaves behind inside the network: what a training step must hold."""
    architecture, params = _checked(spec, input)
    with torch.device("meta"):
        return _activations(architecture.build(params, input), input)


def check_weights(spec: NetworkSpec, input: InputSpec, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise `BadNetwork` unless `tensors` is a state dict of this network: names, types, shapes, finite."""
    with torch.device("meta"):
        architecture, params = _checked(spec, input)
        expected = architecture.build(params, input).state_dict()
    wrong = [_mismatch(name, expected.get(name), tensors.get(name)) for name in sorted({*expected, *tensors})]
    if found := [text for text in wrong if text]:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise BadNetwork(
            f"weights do not fit network '{spec.name}': {'; '.join(found[:3])}{more}", "/network/weights"
        )


def _mismatch(name: str, expected: torch.Tensor | None, given: torch.Tensor | None) -> str | None:
    if expected is None:
        return f"'{name[:80]}' is not one of its tensors"
    if given is None:
        return f"'{name}' is missing"
    if given.shape != expected.shape:
        return f"'{name}' has shape {list(given.shape)}, not {list(expected.shape)}"
    if given.dtype != expected.dtype:
        return f"'{name}' is {given.dtype}, not {expected.dtype}".replace("torch.", "")
    if given.is_floating_point() and not bool(torch.isfinite(given).all()):
        return f"'{name}' has values that are not finite"
    return None


def _checked(spec: NetworkSpec, input: InputSpec) -> tuple[Architecture[Any], NetworkParams]:
    architecture = NETWORKS.get(spec.name)
    if architecture is None:
        raise BadNetwork(f"no network '{spec.name[:80]}'; there are {', '.join(NETWORKS)}", "/network/name")
    if input.kind not in architecture.kinds:
        known = " and ".join(sorted(architecture.kinds))
        raise BadNetwork(f"'{spec.name}' reads {known} inputs, not {input.kind}", "/network/name")
    try:
        params: NetworkParams = architecture.params.model_validate(spec.params)
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "/".join(["/network/params", *(str(part) for part in first["loc"])])
        raise BadNetwork(first["msg"].removeprefix("Value error, "), pointer) from None
    if architecture.width(params, input) > MAX_WIDTH:
        raise BadNetwork(f"more than {MAX_WIDTH:,} features a row", "/input/shape")
    return architecture, params


def _check_size(network: nn.Module, input: InputSpec) -> None:
    """`network` is on the meta device, where tensors have shapes and no memory."""
    if (size := sum(p.numel() for p in network.parameters())) > MAX_PARAMETERS:
        raise BadNetwork(f"{size:,} parameters; at most {MAX_PARAMETERS:,}", "/network/params")
    if (values := _activations(network, input)) > MAX_ACTIVATIONS:
        raise BadNetwork(
            f"{values:,} values a row inside the network; at most {MAX_ACTIVATIONS:,}", "/network/params"
        )


def _activations(network: nn.Module, input: InputSpec) -> int:
    if isinstance(network, Identity):
        return 0
    outputs: list[int] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _module, _args, output: outputs.append(output.numel()))
    network.eval()(torch.empty(1, *input.shape, dtype=getattr(torch, input.dtype)))
    return sum(outputs)
