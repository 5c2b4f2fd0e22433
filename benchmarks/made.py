"""Models, versions and data sets for the benchmark of the service, all made over HTTP."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from app.client import Client
from app.methods import networks
from app.methods.networks.spec import InputSpec, NetworkSpec
from examples.heads import pack

RANDOM = np.random.default_rng(0)
NUMBERS = itertools.count()
CONVNET = NetworkSpec(name="convnet", params={"channels": [32, 64, 128]})
IMAGE = InputSpec(kind="image", shape=(28, 28))


def npy(array: NDArray[Any]) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


def dataset(api: Client, x: NDArray[Any], label: NDArray[Any]) -> str:
    """Rows with labels, sent; the id."""
    return str(api.send(npz(x, label))["id"])


def npz(x: NDArray[Any], label: NDArray[Any]) -> bytes:
    body = io.BytesIO()
    np.savez(body, x=x, label=label)
    return body.getvalue()


def rows(classes: int, per_class: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Classes that are easy to tell apart."""
    means = RANDOM.normal(size=(classes, width))
    x = np.repeat(means, per_class, axis=0) + 0.1 * RANDOM.normal(size=(classes * per_class, width))
    return x.astype(np.float32), np.repeat([f"class {i}" for i in range(classes)], per_class)


def model(api: Client, **fields: Any) -> str:
    """A model of a fresh name; the id."""
    body = {"name": f"model {next(NUMBERS)}", "task": "classification", **fields}
    return str(api.post("models", body)["id"])


def vectors(width: int) -> dict[str, Any]:
    return {"kind": "vector", "shape": [width], "grid": "normalised"}


def imported(api: Client, width: int, classes: int) -> str:
    """A model for `width` features with an imported head; the id."""
    made = model(api, input=vectors(width))
    bring(api, made, width, classes)
    return made


def images(api: Client) -> str:
    """A model for images of 28 x 28 with a convolutional network, its weights uploaded; the id."""
    network = networks.seeded_build(CONVNET, IMAGE, 0)
    headers = {"Content-Type": "application/x-safetensors"}
    sent = api.call("POST", "uploads", file=save(network.state_dict()), headers=headers).json()
    made = model(
        api,
        input={"kind": "image", "shape": [28, 28], "grid": "normalised"},
        network={"name": CONVNET.name, "params": CONVNET.params, "weights": sent["id"]},
    )
    bring(api, made, networks.width(CONVNET, IMAGE), 10)
    return made


def bring(api: Client, model_id: str, width: int, classes: int) -> None:
    weight = RANDOM.normal(size=(classes, width)).astype(np.float32)
    body = pack(weight, np.zeros(classes, np.float32), {"classes": [f"class {i}" for i in range(classes)]})
    path = f"models/{model_id}/versions/import"
    api.call("POST", path, file=body, headers={"Content-Type": "application/zip"})
