"""Uploads as they stream: cut off, stalled, endless, parallel; and weights."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from app import ids
from app.config import Limits
from app.errors import ArtifactCorrupt
from app.main import create_app
from app.services.datasets import arrivals
from app.tables import Upload
from tests.api.conftest import bearer
from tests.api.sending import npy, npz, send, traces

X = np.arange(12, dtype=np.float32).reshape(4, 3)
WEIGHTS = {"0.weight": np.ones((8, 4), np.float32), "0.bias": np.zeros(8, np.float32)}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"limits": Limits(body_bytes=100_000, idle_seconds=0.3)})


def scope_of(token: str, path: str = "/v1/datasets", **headers: str) -> dict[str, Any]:
    all = {
        "authorization": bearer(token)["Authorization"],
        "content-type": "application/x-npy",
        "idempotency-key": "once",
        **headers,
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in all.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


def call(client, token, messages, **headers):
    """What the app answers to a body that comes as these ASGI messages; a float waits so many seconds."""
    sent = []
    left = iter(messages)

    async def receive():
        message = next(left)
        while isinstance(message, float):
            await asyncio.sleep(message)
            message = next(left)
        return message

    async def keep(message):
        sent.append(message)

    asyncio.run(client.app(scope_of(token, **headers), receive, keep))
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_is_put_together(client, service, admin_token):
    body = npy(X)

    status, answer = call(
        client, admin_token, [part(body[:7]), part(body[7:90]), part(body[90:]), part(b"", more=False)]
    )

    assert (status, answer["rows"]) == (201, 4)


def test_a_client_that_goes_away_leaves_nothing(client, service, admin_token):
    before = traces(service)

    status, answer = call(client, admin_token, [part(npy(X)[:100]), {"type": "http.disconnect"}])

    assert (status, answer["code"]) == (400, "invalid-request")
    assert traces(service) == before


def test_a_body_shorter_than_it_said_leaves_nothing(client, service, admin_token):
    before = traces(service)
    body = npy(X)

    status, answer = call(
        client, admin_token, [part(body, more=False)], **{"content-length": str(len(body) + 1)}
    )

    assert (status, answer["code"]) == (400, "invalid-request")
    assert traces(service) == before


def test_a_client_that_stalls_is_let_go(client, service, admin_token):
    before = traces(service)

    status, answer = call(client, admin_token, [part(npy(X)[:100]), 5.0, part(b"", more=False)])

    assert (status, answer["code"]) == (400, "invalid-request")
    assert "0.3 seconds" in answer["detail"]
    assert traces(service) == before


def test_an_endless_body_is_cut_at_the_limit(client, service, admin_token):
    before = traces(service)
    taken = []

    def endless():
        yield part(npy(X))
        while True:
            taken.append(1)
            yield part(b"0" * 10_000)

    status, answer = call(client, admin_token, endless())

    assert (status, answer["code"]) == (413, "body-too-large")
    assert len(taken) < 12
    assert traces(service) == before


def test_a_pickle_is_refused_by_its_first_bytes(client, service, admin_token):
    taken = []

    def pickled():
        while True:
            taken.append(1)
            yield part(b"\x80\x04" + b"\x00" * 600)

    status, answer = call(client, admin_token, pickled())

    assert (status, answer["code"]) == (415, "unsafe-format")
    assert len(taken) == 1


def test_a_duplicate_of_an_upload_that_is_streaming_is_409(client, service, admin_token):
    """The second call comes while the first one's body is still on its way; then the first one ends well."""
    app = create_app(service)
    answers = {}

    async def both():
        started, go_on = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield npy(X)[:64]
            started.set()
            await go_on.wait()
            yield npy(X)[64:]

        headers = {**bearer(admin_token), "Idempotency-Key": "once", "Content-Type": "application/x-npy"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            first = asyncio.create_task(http.post("/v1/datasets", content=body()))
            await asyncio.sleep(0.1)
            answers["second"] = await http.post("/v1/datasets", content=npy(X))
            go_on.set()
            answers["first"] = await first
            answers["third"] = await http.post("/v1/datasets", content=npy(X))

    asyncio.run(both())

    assert answers["first"].status_code == 201
    assert answers["second"].json()["code"] == "idempotency-in-progress"
    assert answers["second"].status_code == 409
    assert answers["third"].json() == answers["first"].json()


def test_parallel_uploads_of_the_same_bytes_are_stored_once(client, service, monkeypatch):
    """Both parse at the same time; the second one to commit finds the first."""
    both_parsed = threading.Barrier(2, timeout=20)
    real = arrivals.Arrival.take

    def take(self, spooled):
        real(self, spooled)
        both_parsed.wait()

    monkeypatch.setattr(arrivals.Arrival, "take", take)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(send(client, npz(x=X, sample_id=list("abcd")), "npz")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer.status_code for answer in answers) == [200, 201]
    assert answers[0].json() == answers[1].json()
    found = traces(service)
    assert (found["datasets"], found["shards"], found["objects"], found["samples"]) == (1, 1, 1, 4)


def upload(client, body, *, headers=None, **query):
    kind = {"Content-Type": "application/x-safetensors"}
    return client.post("/v1/uploads", content=body, params=query, headers={**kind, **(headers or {})})


def test_weights_are_stored_and_their_tensors_shown(client, service):
    answer = upload(client, save(WEIGHTS), name="encoder")

    assert answer.status_code == 201
    told = answer.json()
    assert told["name"] == "encoder"
    assert told["size_bytes"] == len(save(WEIGHTS))
    assert told["tensors"] == {
        "0.weight": {"dtype": "F32", "shape": [8, 4]},
        "0.bias": {"dtype": "F32", "shape": [8]},
    }
    assert client.get(answer.headers["Location"]).json() == told
    with service.db.read() as session:
        row = session.get_one(Upload, ids.decode("upl", told["id"]))
    assert service.vault.open(row.file_id, service.vault.key(row.key_id)) == save(WEIGHTS)


def test_weights_with_a_key_are_stored_once(client, service):
    once = {"Idempotency-Key": "once"}
    first = upload(client, save(WEIGHTS), headers=once)
    before = traces(service)

    again = upload(client, save(WEIGHTS), headers=once)
    other = upload(client, save({"a": X}), headers=once)

    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")
    assert traces(service) == before


def overlapping() -> bytes:
    """Two tensors over the same bytes."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    return len(header).to_bytes(8, "little") + header + b"\x00" * 8


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (save(WEIGHTS)[:-1], 422, "validation-failed"),
        (save(WEIGHTS) + b"\x00", 422, "validation-failed"),
        (overlapping(), 422, "validation-failed"),
        (save({}), 422, "validation-failed"),
        (save({"a\nb": X}), 422, "validation-failed"),
        (npy(X), 415, "unsupported-media"),
        (b"\x80\x04pickled", 415, "unsafe-format"),
        (save({"a": np.zeros(50_000, np.float32)}), 413, "body-too-large"),
    ],
    ids=["cut off", "more", "overlapping", "no tensors", "a bad name", "npy", "pickle", "too large"],
)
def test_weights_that_cannot_be_are_refused(client, service, body, status, code):
    before = traces(service)

    answer = upload(client, body)

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert traces(service) == before


def test_weights_of_another_tenant_are_404(client, stranger):
    path = upload(client, save(WEIGHTS)).headers["Location"]

    assert client.get(path, headers=stranger).status_code == 404


def test_weights_that_cannot_be_committed_leave_no_file(client, service, monkeypatch):
    before = traces(service)

    def broken(*_, **__):
        raise ArtifactCorrupt("broken")

    monkeypatch.setattr("app.services.datasets.uploads.audit.record", broken)

    assert upload(client, save(WEIGHTS)).status_code == 500
    assert traces(service) == before
