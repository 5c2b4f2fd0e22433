"""What belongs to a tenant is not there for another, on every route that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from app.ids import decode, encode
from app.main import create_app
from app.service import open_service
from app.services.callbacks import messages
from app.services.callers import access
from app.tables import ForgetRequest
from docs.generate import openapi_page
from tests.api.conftest import bearer
from tests.api.world import HEAD, build

DOCUMENT = json.loads(openapi_page())
NAMED = [(method, path) for path, ways in DOCUMENT["paths"].items() for method in ways if "{" in path]


@pytest.fixture(scope="module")
def world(template, tmp_path_factory):
    """A client of a tenant that has one of everything, the ids of that, and another tenant's admin."""
    data_dir = tmp_path_factory.mktemp("tenants")
    template.copy_to(data_dir / "palimpsest.db")
    service = open_service(Settings(data_dir=data_dir))
    access.bootstrap(service)
    token = (data_dir / access.ADMIN_KEY_FILE).read_text().strip()
    stranger = bearer(access.create_tenant(service, "another")[1])
    with TestClient(create_app(service), headers=bearer(token)) as client:
        ids = build(client)
        yield client, ids | {"delivery": a_delivery(service, ids["forget_request"])}, stranger
    service.close()


def a_delivery(service, forget_request: str) -> str:
    """What the courier would send of a request that has a callback."""
    with service.db.begin() as session:
        request = session.get_one(ForgetRequest, decode("fgt", forget_request))
        row = messages.message(request, "forget.received", request.created_at)
        session.add(row)
        return encode("dlv", row.id)


def body_of(method: str, path: str) -> dict[str, Any]:
    """The document's own example of a body, or the zip of a head, which one route takes."""
    content = DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {})
    for media, body in content.items():
        if "example" in body:
            return {"json": body["example"]}
        return {"content": HEAD, "headers": {"Content-Type": media}}
    return {}


def test_there_are_routes_to_try():
    assert len(NAMED) > 20


@pytest.mark.parametrize(("method", "path"), NAMED, ids=[f"{m} {p}" for m, p in NAMED])
def test_what_another_tenant_has_is_not_there(world, method, path):
    client, ids, stranger = world
    there = path.format(**ids)
    query = {"model": ids["model"], "version": ids["number"]} if path.endswith("/export") else {}
    if method == "get" and not path.endswith(("/events", "/certificate", "/export")):
        assert client.get(there).status_code == 200  # for its owner it is
    sent = body_of(method, path)
    headers = {"Idempotency-Key": "k", "If-Match": '"1"', **sent.pop("headers", {}), **stranger}

    answer = client.request(method.upper(), there, params=query, headers=headers, **sent)

    assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), answer.text
