"""Models, data and updates over HTTP; the worker's part is done by this process."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.api.sending import npz, send
from tests.services.learning import AXES, WIDTH, rows, run_next

_numbers = itertools.count()


def a_model(client, **changes: Any):
    answer = create(client, **changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def create(client, **changes: Any):
    body = {
        "name": f"model {next(_numbers)}",
        "task": "classification",
        "input": {"kind": "vector", "shape": [WIDTH]},
        **changes,
    }
    return client.post("/v1/models", json=body)


def a_dataset(client, labels=None, *, seed=0, width=WIDTH, **arrays: Any):
    """The id of vectors near one axis per class; `labels` one per row."""
    labels = rows(ant=4, bee=4) if labels is None else labels
    rng = np.random.default_rng((seed, next(_numbers)))
    x = 0.1 * rng.standard_normal((len(labels), width))
    for row, label in enumerate(labels):
        x[row, AXES.get(label, 0) % width] += 1
    answer = send(client, npz(**{"x": x.astype(np.float32), "label": np.array(labels), **arrays}), "npz")
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def update(client, model, datasets, method="ncm", params=None, *, key=None, headers=None, **fields: Any):
    body = {"datasets": datasets, "method": {"name": method, "params": params or {}}, **fields}
    sent = {"Idempotency-Key": key or f"update-{next(_numbers)}", **(headers or {})}
    return client.post(f"/v1/models/{model['id']}/updates", json=body, headers=sent)


def teach(client, service, model, labels=None, **fields: Any):
    """Send rows, ask for the update, do the job, and give its result."""
    dataset = a_dataset(client, labels)
    answer = update(client, model, [dataset], **fields)
    assert answer.status_code == 202, answer.text
    done = run_next(service)
    assert done.state == "succeeded", done.error
    return done.result
