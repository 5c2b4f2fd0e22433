"""The document says what the service does, and the committed copy of it is the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest

from app.api.openapi import PUBLIC
from docs.generate import openapi_page

PAGE = openapi_page()
DOCUMENT = json.loads(PAGE)
OPERATIONS = [
    (f"{method} {path}", path, operation)
    for path, ways in DOCUMENT["paths"].items()
    for method, operation in ways.items()
]
NAMES = [name for name, _, _ in OPERATIONS]
each = pytest.mark.parametrize(("path", "operation"), [o[1:] for o in OPERATIONS], ids=NAMES)


def test_is_openapi_3_1_and_was_committed():
    committed = (Path(__file__).parents[2] / "docs" / "openapi.json").read_text()

    assert DOCUMENT["openapi"].startswith("3.1")
    assert committed == PAGE, "the routes changed: run `make openapi` and commit docs/openapi.json"


def test_every_operation_has_a_name_of_its_own():
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]

    assert len(set(ids)) == len(ids) > 40
    assert [id for id in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)+", id) or "v1" in id] == []


@each
def test_names_its_tag_and_what_it_does(path, operation):
    assert operation["tags"]
    assert operation["description"]


@each
def test_names_every_error_in_the_one_shape(path, operation):
    errors = {int(s): r for s, r in operation["responses"].items() if int(s) >= 400}

    if path not in PUBLIC:
        assert {400, 401, 403, 503} <= set(errors)
        assert operation["security"] == [{"key": []}]
    if "{" in path:
        assert 404 in errors
    for status, response in errors.items():
        if path != "/readyz":
            assert list(response["content"]) == ["application/problem+json"], status
        assert response["description"], status


@each
def test_its_examples_are_what_its_schemas_take(path, operation):
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for media, content in body.get("content", {}).items():
            if not media.endswith("json"):
                continue
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            problems = list(jsonschema_rs.Draft202012Validator(schema).iter_errors(content["example"]))
            assert [str(problem) for problem in problems] == []


def test_requests_refuse_unknown_fields_and_answers_may_grow():
    schemas = DOCUMENT["components"]["schemas"]
    requests = {name for name in schemas if name.endswith(("Create", "Change", "Put"))}

    assert len(requests) >= 4
    assert {name for name in requests if schemas[name].get("additionalProperties") is not False} == set()
    assert schemas["JobRead"]["properties"]["state"]["type"] == "string"
    assert "enum" not in schemas["JobRead"]["properties"]["state"]
    assert schemas["JobRead"]["properties"]["id"]["readOnly"] is True
