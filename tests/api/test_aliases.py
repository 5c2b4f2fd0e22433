"""Aliases over HTTP."""

import pytest

from app import ids
from app.tables import Dataset
from tests.api.conftest import both_stacks
from tests.api.teaching import a_dataset, a_model, teach, update
from tests.services.learning import erase, rows, run_next


@pytest.fixture
def model(client, service):
    """A model with versions 1 and 2."""
    made = a_model(client)
    teach(client, service, made, rows(ant=2, bee=2))
    teach(client, service, made, rows(cat=2))
    return made


def address(model, rest="/production"):
    return f"/v1/models/{model['id']}/aliases{rest}"


def put(client, model, version, headers=None, **fields):
    return client.put(
        address(model), json={"version": version, "reason": "test", **fields}, headers=headers or {}
    )


def test_makes_and_reads_an_alias(client, model):
    answer = put(client, model, 1)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"1"')
    read = client.get(address(model))
    assert read.headers["ETag"] == '"1"'
    assert read.json() == answer.json()
    assert (read.json()["version"], read.json()["computed"]) == (1, False)


def test_moves_only_with_the_etag_that_was_read(client, model):
    put(client, model, 1)
    assert put(client, model, 2).status_code == 428
    assert put(client, model, 2, {"If-Match": '"9"'}).status_code == 412
    assert put(client, model, 2, {"If-Match": '"1"'}).json()["version"] == 2
    assert put(client, model, 1, {"If-Match": '"1"'}).status_code == 412


def test_does_not_make_what_was_expected_to_exist(client, model):
    assert put(client, model, 1, {"If-Match": '"1"'}).status_code == 412


def test_shows_a_move_to_the_next_read(client, model):
    put(client, model, 1)
    assert client.get(address(model)).json()["version"] == 1
    put(client, model, 2, {"If-Match": "*"})
    assert client.get(address(model)).json()["version"] == 2


def test_computes_latest(client, service, model):
    assert client.get(address(model, "/latest")).json()["version"] == 2
    teach(client, service, model, rows(dog=2))
    assert client.get(address(model, "/latest")).json()["version"] == 3
    body = {"version": 1, "reason": "test"}
    answer = client.put(address(model, "/latest"), json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")


@pytest.mark.parametrize("name", ["Production", "9lives", "a" * 64, "a_b"])
def test_refuses_a_name_of_another_form(client, model, name):
    answer = client.put(address(model, f"/{name}"), json={"version": 1, "reason": "test"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"version": 9}, "/version"),
        ({"reason": ""}, "/reason"),
        ({"weight": 1}, "/weight"),
        ({"version": 0}, "/version"),
    ],
)
def test_refuses_what_it_cannot_honour(client, model, fields, pointer):
    answer = put(client, model, **{"version": 1, **fields})
    assert answer.status_code in (404, 422)
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_rolls_back_once_per_key(client, model):
    put(client, model, 1)
    put(client, model, 2, {"If-Match": "*"})
    headers = {"If-Match": '"2"', "Idempotency-Key": "back"}
    first = client.post(address(model, "/production/rollback"), json={"reason": "worse"}, headers=headers)
    again = client.post(address(model, "/production/rollback"), json={"reason": "worse"}, headers=headers)
    assert (first.status_code, first.json()["version"]) == (200, 1)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert client.get(address(model)).json()["revision"] == 3


def test_answers_what_was_live_when(client, model):
    put(client, model, 1)
    put(client, model, 2, {"If-Match": "*"})
    moves = client.get(address(model, "/production/history")).json()["items"]
    assert [move["version"] for move in moves] == [2, 1]
    then = client.get(address(model, "/production/history"), params={"as_of": moves[1]["created_at"]}).json()
    assert [move["version"] for move in then["items"]] == [1]
    early = client.get(address(model, "/production/history"), params={"as_of": "2020-01-01T00:00:00Z"})
    assert early.status_code == 404


def test_removes_an_alias_and_keeps_its_history(client, model):
    put(client, model, 1)
    assert client.delete(address(model)).status_code == 428
    assert client.delete(address(model), headers={"If-Match": '"1"'}).status_code == 204
    assert client.get(address(model)).status_code == 404
    assert len(client.get(address(model, "/production/history")).json()["items"]) == 2


def test_refuses_a_tainted_version_with_the_first_allowed(client, service):
    model = a_model(client)
    teach(client, service, model, rows(ant=2, bee=2))
    dataset = a_dataset(client, rows(cat=2))
    update(client, model, [dataset])
    run_next(service)
    with service.db.read() as session:
        row = session.get_one(Dataset, ids.decode("dst", dataset))
    erase(service, row.tenant_id, row, 0)
    answer = put(client, model, 2)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "version-tainted")
    assert problem["errors"] == [{"pointer": "/version", "code": "tainted", "message": "choose 1"}]
    assert problem["related"] == [f"/v1/models/{model['id']}/versions/1"]


def test_lets_only_promoters_move_a_protected_alias(client, model, key_with):
    put(client, model, 1, protected=True)
    answer = put(client, model, 2, {**key_with("train"), "If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "alias-protected")
    assert put(client, model, 2, {**key_with("train", "promote"), "If-Match": "*"}).status_code == 200


def test_lists_aliases_with_latest(client, model):
    put(client, model, 1)
    found = client.get(address(model, "")).json()["items"]
    assert [(item["name"], item["version"]) for item in found] == [("latest", 2), ("production", 1)]


def test_shows_no_alias_of_another_tenant(client, model, stranger):
    put(client, model, 1)
    body = {"version": 2, "reason": "mine now"}
    sent = {**stranger, "If-Match": "*"}
    calls = [
        client.get(address(model), headers=stranger),
        client.put(address(model), json=body, headers=sent),
        client.delete(address(model), headers=sent),
        client.get(address(model, "/production/history"), headers=stranger),
        client.post(
            address(model, "/production/rollback"),
            json={"reason": "x"},
            headers=sent,
        ),
    ]
    assert [answer.status_code for answer in calls] == [404] * len(calls)
    assert client.get(address(model)).json()["version"] == 1


def test_gives_no_tag_again_to_an_alias_made_anew(client, model):
    old = put(client, model, 1).headers["ETag"]
    assert client.delete(address(model), headers={"If-Match": old}).status_code == 204
    new = put(client, model, 2).headers["ETag"]
    assert new != old
    assert put(client, model, 1, {"If-Match": old}).status_code == 412
    assert put(client, model, 1, {"If-Match": new}).status_code == 200


@both_stacks
def test_names_the_field_of_what_no_database_holds(client, model):
    sent = [
        client.put(address(model), json={"version": 1, "reason": "a\0b"}),
        client.put(address(model), json={"version": 2**40, "reason": "a"}),
        client.get(f"/v1/models/{model['id']}/versions/1/artifact", params={"recipient": "a\0b"}),
        client.get("/v1/models", params={"name": "a\0b"}),
        client.get("/v1/audit-events", params={"action": "a\0b"}),
    ]
    assert [answer.status_code for answer in sent] == [422] * len(sent)
    pointers = [answer.json()["errors"][0]["pointer"] for answer in sent]
    assert pointers == ["/reason", "/version", "recipient", "name", "action"]
