"""One of everything that a tenant can have, made over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors.numpy import save

from examples.heads import pack

ROWS = {"x": [[0, 1], [1, 0], [0, 2], [2, 0]], "label": ["up", "right", "up", "right"]}
HEAD = pack(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), {"classes": ["a", "b"]})
INPUT = {"kind": "vector", "shape": [2], "grid": {"exponent": 0}}


def build(client: Any, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Path fields of the API and the ids that stand for them."""
    mine = headers or {}

    def made(path: str, **sent: Any) -> dict[str, Any]:
        sent["headers"] = {"Idempotency-Key": f"world {path}", **mine, **sent.get("headers", {})}
        answer = client.post(path, **sent)
        assert answer.status_code in (201, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    dataset = made("/v1/datasets", json=ROWS)["id"]
    model = made("/v1/models", json={"name": "world", "task": "classification", "input": INPUT})["id"]
    zipped = {"Content-Type": "application/zip"}
    version = made(f"/v1/models/{model}/versions/import", content=HEAD, headers=zipped)
    alias = client.put(
        f"/v1/models/{model}/aliases/production",
        json={"version": 1, "reason": "first"},
        headers={**mine, "If-None-Match": "*"},
    )
    assert alias.status_code in (200, 201), alias.text
    learner = {"name": "learner", "task": "classification", "input": INPUT}
    headers_of = {"Idempotency-Key": "world learner"}
    taught = made("/v1/models", json=learner, headers=headers_of)["id"]
    update = {"datasets": [dataset], "method": {"name": "ncm"}}
    tensors = save({"weight": np.ones((2, 2), np.float32)})
    sent = {"Content-Type": "application/x-safetensors"}
    return {
        "dataset": dataset,
        "model": model,
        "number": "1",
        "class_id": version["classes"][0]["id"],
        "alias": "production",
        "job": made(f"/v1/models/{taught}/updates", json=update)["id"],
        "upload": made("/v1/uploads", content=tensors, headers=sent)["id"],
        "forget_request": made(
            "/v1/forget-requests", json={"scope": "subject", "targets": ["nobody"], "models": [taught]}
        )["id"],
        "key": made("/v1/api-keys", json={"name": "world", "scopes": ["read"]})["id"],
    }
