"""Forget requests over HTTP: who may, what is answered, and that no name is ever said again."""

from __future__ import annotations

from typing import Any

import pytest

from app import ids
from tests.api.conftest import both_stacks

PERSON = "Zoé Müller <zoe@example.org>"
PATH = "/v1/forget-requests"
LABELLED = {"x": [[0, 1], [1, 0], [0, 2], [2, 0]], "label": ["up", "right", "up", "right"]}


@pytest.fixture
def dataset(client):
    """Two of its rows name the person."""
    body = {**LABELLED, "subject": [PERSON, "ben", f" {PERSON} ", "cleo"]}
    answer = client.post("/v1/datasets", json=body, headers={"Idempotency-Key": "data"})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def ask(client: Any, *, key: str = "k", headers: dict[str, str] | None = None, **body: Any) -> Any:
    body = {"scope": "subject", "targets": [PERSON], **body}
    return client.post(PATH, json=body, headers={"Idempotency-Key": key, **(headers or {})})


@both_stacks
def test_answers_202_and_the_same_again_without_naming_anybody(client, service, dataset):
    first = ask(client, external_id="ticket-1", regulation="gdpr")
    assert first.status_code == 202, first.text
    made = first.json()
    assert (first.headers["Location"], first.headers["Retry-After"]) == (f"{PATH}/{made['id']}", "2")
    assert (made["state"], made["items"], made["evidence"]) == ("received", [], {})
    assert (made["days_left"] in range(27, 32), made["overdue"]) == (True, False)
    again = ask(client, targets=[f"{PERSON}\n"], external_id="ticket-1", regulation="gdpr")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json() == made
    assert ask(client, targets=["ben"]).json()["code"] == "idempotency-mismatch"
    there = client.get(first.headers["Location"])
    assert there.json()["evidence"]["rows"] == 2
    for said in (first.text, there.text, client.get(PATH).text, client.get("/v1/audit-events").text):
        assert "zoe" not in said.lower()
    kept = [path.read_bytes() for path in service.settings.data_dir.rglob("*") if path.is_file()]
    assert not any(b"zoe@example.org" in content for content in kept)


def test_needs_a_key_for_each_effect(client):
    refused = client.post(PATH, json={"scope": "subject", "targets": [PERSON]})
    assert (refused.status_code, refused.json()["code"]) == (400, "missing-idempotency-key")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"targets": []}, "/targets"),
        ({"targets": [" "]}, "/targets/0"),
        ({"targets": ["ok", {"any_of": []}]}, "/targets/1"),
        ({"targets": [{PERSON: 1}]}, "/targets/0"),
        ({"targets": {PERSON: 1}}, "/targets"),
        ({"targets": [PERSON + "\0"]}, "/targets/0"),
        ({"targets": [PERSON, 7]}, "/targets/1"),
        ({"scope": "class"}, "/targets/0"),
        ({"scope": "everybody"}, "/scope"),
        ({"due_at": "2026-01-01T00:00:00Z"}, "/due_at"),
        ({"submitted_at": "2999-01-01T00:00:00Z"}, "/submitted_at"),
        ({"submitted_at": "yesterday"}, "/submitted_at"),
        ({"method": {"name": "analytic"}}, "/method/name"),
        ({"method": {"name": "exact", "params": {"a": 1}}}, "/method/params"),
        ({"accept": "hidden"}, "/accept"),
        ({"regulation": "hipaa"}, "/regulation"),
        ({"models": []}, "/models"),
        ({"identity": "yes"}, "/identity"),
    ],
)
def test_says_what_is_wrong_and_not_whom_it_was_about(client, changes, pointer):
    refused = ask(client, **changes)
    assert refused.status_code == 422, refused.text
    assert [fault["pointer"] for fault in refused.json()["errors"]] == [pointer]
    assert "zoe" not in refused.text.lower()
    assert client.get(PATH).json()["items"] == []


def test_what_another_tenant_has_is_not_there(client, dataset, stranger):
    mine = ask(client).json()["id"]
    assert client.get(f"{PATH}/{mine}", headers=stranger).status_code == 404
    assert client.get(PATH, headers=stranger).json()["items"] == []
    rows = [{"dataset": dataset, "positions": [0]}]
    refused = ask(client, headers=stranger, scope="samples", targets=rows)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (404, "/targets/0/dataset")


def test_who_may_ask_look_and_decide(client, key_with, dataset):
    clerk, chief, reader = key_with("forget:create"), key_with("forget:approve"), key_with("read")
    asked = ask(client, headers=clerk).json()
    one = f"{PATH}/{asked['id']}"
    assert client.get(one).json()["state"] == "awaiting-approval"
    assert ask(client, headers=chief).status_code == 403
    assert [client.get(one, headers=who).status_code for who in (clerk, chief, reader)] == [200, 200, 403]
    assert client.get(PATH, headers=reader).status_code == 403
    for deed in ("approve", "reject", "extend", "hold", "release"):
        body = {"reason": "x"} if deed in ("reject", "extend", "hold") else None
        assert client.post(f"{one}/{deed}", json=body, headers=clerk).status_code == 403

    for who in (key_with("forget:create"), reader):
        refused = client.post(f"{one}/cancel", headers=who)
        assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope")

    approved = client.post(f"{one}/approve", headers={**chief, "Idempotency-Key": "a"})
    assert (approved.status_code, approved.json()["state"]) == (202, "purging")
    again = client.post(f"{one}/approve", headers={**chief, "Idempotency-Key": "a"})
    assert again.headers["Idempotency-Replayed"] == "true"
    late = client.post(f"{one}/reject", json={"reason": "late"}, headers=chief)
    assert (late.status_code, late.json()["code"]) == (409, "request-state")
    assert client.post(f"{one}/cancel", headers=clerk).json()["code"] == "request-state"
    assert client.post(f"{one}/retry", headers=clerk).json()["code"] == "request-state"


def test_decisions_show_and_change_the_tag(client, key_with):
    clerk = key_with("forget:create")
    one = f"{PATH}/{ask(client, headers=clerk).json()['id']}"
    tag = client.get(one).headers["ETag"]
    assert client.get(one, headers={"If-None-Match": tag}).status_code == 304
    held = client.post(f"{one}/hold", json={"reason": "suit", "until": "2999-01-01T00:00:00Z"})
    assert (held.status_code, held.json()["hold"]["reason"]) == (200, "suit")
    assert client.get(one, headers={"If-None-Match": tag}).headers["ETag"] == held.headers["ETag"]
    longer = client.post(f"{one}/extend", json={"reason": "many", "months": 1}).json()
    assert longer["due_at"] > longer["extension"]["due_before"]
    assert client.post(f"{one}/release").json()["hold"] is None
    gone = client.post(f"{one}/cancel", json={"reason": "a mistake"}, headers=clerk).json()
    assert (gone["state"], gone["reason"], gone["done"]) == ("cancelled", "a mistake", True)
    assert client.post(f"{one}/hold", json={"reason": ""}).status_code == 422


def test_lists_by_pages_and_filters(client, key_with):
    clerk = key_with("forget:create")
    for i in range(3):
        ask(client, key=f"k{i}", headers=clerk, targets=[f"person {i}"], external_id=f"t-{i}")
    first = client.get(PATH, params={"page_size": 2}).json()
    rest = client.get(PATH, params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    assert [one["external_id"] for one in first["items"] + rest["items"]] == ["t-0", "t-1", "t-2"]
    assert [
        one["external_id"] for one in client.get(PATH, params={"external_id": "t-1"}).json()["items"]
    ] == ["t-1"]
    assert client.get(PATH, params={"state": "completed"}).json()["items"] == []
    assert client.get(PATH, params={"model": ids.encode("mdl", ids.new())}).json()["items"] == []
    assert client.get(PATH, params={"targets": PERSON}).status_code == 400
