"""A linear head as a version of a model: packed as a zip, imported over HTTP, asked for its opinion."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from app.client import ADDRESS_FILE, KEY_FILE

Json = dict[str, Any]


@contextmanager
def local(data_dir: Path = Path("palimpsest-data")) -> Iterator[httpx.Client]:
    """The service that runs in a data directory on this machine, as its administrator."""
    key = (data_dir / KEY_FILE).read_text().strip()
    address = (data_dir / ADDRESS_FILE).read_text().strip()
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}) as http:
        yield http


def bring_in(
    http: httpx.Client,
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    classes: Sequence[str],
    exponent: int,
) -> Json:
    """A new model for rows of raw values on a grid of 2**exponent, and this head as its version 1.

    `weight` is (classes, width), `bias` (classes,).
    """
    model = _sent(
        http.post(
            "/v1/models",
            json={
                "name": f"imported {uuid.uuid4().hex[:8]}",
                "task": "classification",
                "input": {"kind": "vector", "shape": [weight.shape[1]], "grid": {"exponent": exponent}},
            },
        )
    )
    packed = pack(weight, bias, {"classes": list(classes), "normalise": False})
    path = f"/v1/models/{model['id']}/versions/import"
    return _sent(http.post(path, content=packed, headers={"Content-Type": "application/zip"}))


def pack(weight: NDArray[np.floating], bias: NDArray[np.floating], described: Mapping[str, Any]) -> bytes:
    """The zip of an import."""
    packed = io.BytesIO()
    # safetensors writes an array as it lies in memory, and scikit-learn's may lie column by column
    tensors = {"weight": np.ascontiguousarray(weight), "bias": np.ascontiguousarray(bias)}
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("head.json", json.dumps(described))
        archive.writestr("head.safetensors", save(tensors))
    return packed.getvalue()


def ask(http: httpx.Client, version: Json, rows: NDArray[np.floating]) -> list[str]:
    """The labels that the service gives to rows."""
    body = io.BytesIO()
    np.save(body, rows.astype(np.float32))
    answer = _sent(
        http.post(
            f"/v1/models/{version['model']}/predict",
            params={"version": version["number"]},
            content=body.getvalue(),
            headers={"Content-Type": "application/x-npy"},
        )
    )
    return [row["label"] for row in answer["predictions"]]


def _sent(answer: httpx.Response) -> Json:
    if answer.is_error:
        raise SystemExit(f"the service refused: {answer.text}")
    return dict(answer.json())
