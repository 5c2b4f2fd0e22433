"""Errors over HTTP: one shape, a pointer to what is wrong, nothing of ours inside."""

from __future__ import annotations

import errno

import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from app import ids, main
from app.api.problems import codes
from app.errors import ValidationFailed
from app.main import create_app
from app.service import Service
from tests.api.conftest import bearer

FIELDS = {
    "type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "errors", "related"
}  # fmt: skip

broken = APIRouter(prefix="/broken")


class Inner(BaseModel):
    values: list[int]


class Outer(BaseModel):
    inner: Inner


@broken.post("/body")
def body(body: Outer) -> None: ...


@broken.get("/{kind}")
def fail(kind: str) -> None:
    raise {
        "bug": RuntimeError("secret /path/to/file"),
        "away": OperationalError("SELECT secret", {}, Exception("connection refused")),
        "full": OSError(errno.ENOSPC, "No space left on device", "/secret"),
        "database-full": OperationalError("INSERT", {}, Exception("database or disk is full")),
        "other": OSError(errno.EIO, "I/O error", "/secret"),
        "ours": ValidationFailed("that is wrong", pointer="/a/b"),
    }[kind]


@pytest.fixture
def failing(service: Service, admin_token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(main, "ROUTERS", (*main.ROUTERS, broken))
    with TestClient(create_app(service), headers=bearer(admin_token)) as client:
        yield client


def test_an_unknown_address_is_a_problem_with_every_field(client):
    answer = client.get("/v1/nowhere", headers={"X-Request-Id": "mine-1"})

    problem = answer.json()
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == FIELDS
    assert problem["code"] == "not-found"
    assert problem["instance"] == "/v1/nowhere"
    assert problem["request_id"] == answer.headers["x-request-id"] == "mine-1"


def test_the_type_of_a_problem_is_a_page_that_explains_it(client):
    problem = client.get("/v1/nowhere").json()

    page = client.get(problem["type"])

    assert page.status_code == 200
    assert "not-found" in page.text


def test_every_code_has_one_meaning_and_a_page(client):
    found = codes()

    assert len(found) > 30
    assert all(client.get(f"/problems/{code}").status_code == 200 for code in found)
    assert client.get("/problems/no-such-code").status_code == 404


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("bug", 500, "internal"),
        ("other", 500, "internal"),
        ("away", 503, "not-ready"),
        ("full", 503, "storage-full"),
        ("database-full", 503, "storage-full"),
        ("ours", 422, "validation-failed"),
    ],
)
def test_what_breaks_is_told_without_its_insides(failing, kind, status, code):
    answer = failing.get(f"/v1/broken/{kind}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_an_error_of_ours_points_into_the_body(failing):
    problem = failing.get("/v1/broken/ours").json()

    assert problem["errors"] == [{"pointer": "/a/b", "code": "validation-failed", "message": "that is wrong"}]


def test_a_bad_value_is_named_by_json_pointer(failing):
    problem = failing.post("/v1/broken/body", json={"inner": {"values": [1, "x"]}}).json()

    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("/inner/values/1", "int_parsing")]


def test_a_missing_field_is_named_by_json_pointer(failing):
    problem = failing.post("/v1/broken/body", json={"inner": {}}).json()

    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("/inner/values", "missing")]


def test_an_unknown_body_field_is_refused_by_name(client):
    answer = client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"], "colour": "red"})

    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/colour"]


def test_an_unknown_query_field_is_refused_by_name(client):
    answer = client.get("/v1/jobs", params={"stat": "queued"})

    assert answer.status_code == 400
    assert [e["pointer"] for e in answer.json()["errors"]] == ["stat"]


def test_a_bad_query_value_is_named_by_its_field(client):
    answer = client.get("/v1/jobs", params={"state": "sleeping"})

    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == ["state"]


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_400(client, raw):
    answer = client.post("/v1/api-keys", content=raw, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


def test_a_body_of_another_type_is_415(client):
    answer = client.post("/v1/api-keys", content=b"<a/>", headers={"Content-Type": "application/xml"})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media")


def test_another_method_is_405_and_says_which_are_taken(client):
    answer = client.put("/v1/api-keys")

    assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")
    assert answer.headers["allow"]


def test_an_id_that_is_none_is_404(client):
    answer = client.get("/v1/jobs/job_not-an-id")

    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_a_request_id_that_is_not_plain_is_replaced(client):
    answer = client.get("/livez", headers={"X-Request-Id": 'a"b'})

    assert answer.headers["x-request-id"].startswith("req_")


def chunks(size: int):
    for _ in range(size):
        yield b" " * 1024


def test_a_json_body_over_the_limit_is_refused_while_it_streams(service, admin_token):
    limits = service.settings.limits.model_copy(update={"json_bytes": 4096})
    settings = service.settings.model_copy(update={"limits": limits})
    small = Service(settings, service.db, service.vault, service.bell, service.ledger)
    with TestClient(create_app(small), headers=bearer(admin_token)) as client:
        json = {"Content-Type": "application/json"}
        streamed = client.post("/v1/api-keys", content=chunks(100), headers=json)
        announced = client.post("/v1/api-keys", content=b" " * 5000, headers=json)

    for answer in (streamed, announced):
        assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/v1/models", '{"name": "a", "task": "classification", "name": "b"}', "name"),
        ("/v1/models", '{"name": "a", "input": {"kind": "vector", "shape": [4], "shape": [5]}}', "shape"),
        ("/v1/models/mdl_x/predict", '{"inputs": [[1]], "inputs": [[2]]}', "inputs"),
        ("/v1/models/mdl_x/predict", '{"inputs": [[1]], "alias": "a", "ali\\u0061s": "b"}', "alias"),
        ("/v1/api-keys", '{"name": "a", "scopes": ["read"], "scopes": ["admin"]}', "scopes"),
    ],
)
def test_refuses_a_key_that_is_there_twice(client, path, body, key):
    path = path.replace("mdl_x", ids.encode("mdl", ids.new()))
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), answer.text
    assert f"'{key}'" in answer.json()["detail"]
    assert client.get("/v1/models").json()["items"] == []


INPUT = {"kind": "vector", "shape": [4]}


@pytest.mark.parametrize(
    ("path", "body", "faults"),
    [
        ("models", {"input": INPUT, "colour": 1}, {"/colour": "unknown field"}),
        ("models", {}, {"/input": "this field is needed"}),
        (
            "models",
            {"input": {"kind": "vector", "shape": [0]}},
            {"/input/shape/0": "Input should be greater than or equal to 1"},
        ),
        (
            "models",
            {"input": {"kind": "vector", "shape": [4, 4]}},
            {"/input": "a vector has shape [columns]"},
        ),
        (
            "models",
            {"input": INPUT, "update_policy": {"when": "manual", "method": {"name": "magic"}}},
            {"/update_policy/method": "no such method; choose one of 'supervised', "},
        ),
        (
            "models",
            {"input": INPUT, "update_policy": {"when": "manual", "method": {}}},
            {"/update_policy/method": "say which by the field 'name'"},
        ),
    ],
)
def test_says_in_plain_words_what_is_wrong(client, path, body, faults):
    answer = client.post(f"/v1/{path}", json={"name": "a", "task": "classification", **body})

    assert answer.status_code == 422
    found = {fault["pointer"]: fault["message"] for fault in answer.json()["errors"]}
    assert found.keys() == faults.keys()
    assert all(found[pointer].startswith(text) for pointer, text in faults.items()), found


def test_a_query_field_that_is_there_twice_is_refused(client):
    answer = client.get("/v1/jobs", params={"state": ["queued", "running"]})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert [e["pointer"] for e in answer.json()["errors"]] == ["state"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"input": {"kind": "vector", "shape": [True]}}, "/input/shape/0"),
        ({"input": {"kind": "vector", "shape": ["4"]}}, "/input/shape/0"),
        ({"input": INPUT, "min_centroid_rows": "5"}, "/min_centroid_rows"),
        ({"input": INPUT, "keep_versions": 5.0}, "/keep_versions"),
        ({"input": INPUT, "gates": {"min_old": "0.5"}}, "/gates/min_old"),
        (
            {"input": INPUT, "network": {"name": "mlp", "params": {"hidden": ["4"]}}},
            "/network/params/hidden/0",
        ),
        (
            {
                "input": INPUT,
                "update_policy": {"when": "on_dataset", "method": {"name": "fetril", "params": {"C": "1"}}},
            },
            "/update_policy/method/params/C",
        ),
    ],
)
def test_a_value_of_another_type_is_not_read_as_one_of_the_right_type(client, body, pointer):
    answer = client.post("/v1/models", json={"name": "a", "task": "classification", **body})

    assert answer.status_code == 422, answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
