"""A look at what a forget request would touch."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.db import clock
from app.services.forget import closure
from app.tables import AuditEvent, Dataset, Export, ForgetItem, ForgetRequest
from tests.api.conftest import both_stacks
from tests.api.sending import every_byte, traces
from tests.api.teaching import a_dataset, a_model, teach, update
from tests.services.asked import request
from tests.services.learning import rows, run_next

ADA, EVE = "ada@example.org", "eve@example.org"
PERSONS = {0: [ADA], 1: [ADA], 2: [ADA, EVE], 3: ["ben"], 4: ["ben"]}  # row -> whom it is about


def look(client, targets, scope="subject", **fields):
    answer = client.post("/v1/forget-requests/preview", json={"scope": scope, "targets": targets, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def codes(found):
    return [one["code"] for one in found["uncovered"]]


@pytest.fixture
def model(client, service):
    """A model of two versions, the first served and exported; only the first's data names persons."""
    made = a_model(client)
    split = np.array(["train"] * 6 + ["eval"] * 2)
    dataset = a_dataset(
        client,
        rows(ant=4, bee=4),
        subject=np.array([one for persons in PERSONS.values() for one in persons]),
        subject_row=np.array([row for row, persons in PERSONS.items() for _ in persons]),
        sample_id=np.array([f"row-{at}" for at in range(8)]),
        split=split,
    )
    assert update(client, made, [dataset]).status_code == 202
    assert run_next(service).state == "succeeded"
    teach(client, service, made, rows(cat=3))
    url = f"/v1/models/{made['id']}"
    body = {"version": 1, "reason": "first"}
    assert client.put(f"{url}/aliases/production", json=body, headers={"If-None-Match": "*"}).is_success
    assert client.get(f"{url}/versions/1/artifact", params={"recipient": "a bank"}).is_success
    return {**made, "dataset": dataset}


@both_stacks
def test_shows_everything_that_a_person_touches_and_stores_nothing(client, service, model):
    assert update(client, model, [a_dataset(client, rows(dog=2))]).status_code == 202
    waiting = update(client, a_model(client), [model["dataset"]]).json()["id"]
    before = traces(service)

    found = look(client, [ADA, "nobody@example.org"])

    assert (found["persons"], found["found"], found["samples"], found["shared"]) == (2, 1, 3, 1)
    [dataset] = found["datasets"]
    assert (dataset["dataset"], dataset["rows"], dataset["without_subject"]) == (model["dataset"], 3, 3)
    assert (dataset["retained"], dataset["shards"], dataset["features"]) == (True, 1, 1)
    [touched] = found["models"]
    assert (touched["model"], touched["guarantee"]) == (model["id"], "exact")
    assert [one["number"] for one in touched["versions"]] == [1, 2]
    assert touched["versions"][0]["roles"]["train"] == 3
    assert [one["aliases"] for one in touched["versions"]] == [["production"], []]
    assert {one["way"]["name"] for one in touched["versions"]} == {"subtract"}
    assert touched["centroids"] == 3
    assert [job["job"] for job in found["jobs"]] == [waiting]
    assert [(one["recipient"], one["dataset"]) for one in found["exports"]] == [("a bank", None)]
    assert found["exactly_removable"] == {"rows": 1.0, "persons": 1.0}
    assert found["estimated_seconds"] > 0
    assert {"rows-without-subject", "encoder-outside", "exports", "ledger", "backups"} <= set(codes(found))
    assert ("write-ahead-log" in codes(found)) == service.settings.database.url.startswith("postgres")
    assert traces(service) == before
    assert b"nobody@example.org" not in every_byte(service)
    with service.db.read() as session:
        [event] = session.scalars(select(AuditEvent).filter_by(action="forget.previewed"))
    assert event.resources == {}


def test_leaves_rows_of_several_persons_where_they_are_only_to_be_reported(client, model):
    found = look(client, [ADA], shared_rows="report")
    assert (found["samples"], found["shared"], found["datasets"][0]["rows"]) == (2, 1, 2)
    assert "shared-rows" in codes(found)
    both = look(client, [{"any_of": [ADA, EVE]}], shared_rows="report")
    assert (both["samples"], both["shared"]) == (3, 0)


def test_looks_for_rows_by_sample_and_by_position(client, model):
    positions = {"dataset": model["dataset"], "positions": [6, 7]}
    found = look(client, ["row-0", positions], scope="samples")
    assert (found["samples"], found["persons"], found["found"]) == (3, 2, 2)
    one = look(client, ["row-7"], scope="samples")
    assert one["samples"] == 1
    assert "one-row-batch" in codes(one)
    assert "one-row-batch" not in codes(found)


def test_looks_for_the_rows_of_a_class_and_for_the_other_models_that_used_them(client, service, model):
    other = a_model(client)
    assert update(client, other, [model["dataset"]]).status_code == 202
    assert run_next(service).state == "succeeded"
    classes = client.get(f"/v1/models/{model['id']}/classes").json()["items"]
    bee = next(one["id"] for one in classes if one["name"] == "bee")

    found = look(client, [bee], scope="class")

    assert found["samples"] == 4
    by_model = {one["model"]: one for one in found["models"]}
    assert by_model[model["id"]]["classes"] == [bee]
    assert by_model[other["id"]]["classes"] == []
    limited = look(client, [bee], scope="class", models=[model["id"]])
    assert [one["model"] for one in limited["models"]] == [model["id"]]
    assert "other-models" in codes(limited)


def test_says_that_a_version_goes_whose_last_classes_the_rows_of_another_model_s_class_are(
    client, service, model
):
    classes = client.get(f"/v1/models/{model['id']}/classes").json()["items"]
    bee = next(one["id"] for one in classes if one["name"] == "bee")
    other = a_model(client)
    assert update(client, other, [model["dataset"]]).status_code == 202
    assert run_next(service).state == "succeeded"

    found = look(client, [bee], scope="class")

    ways = {one["model"]: [version["way"] for version in one["versions"]] for one in found["models"]}
    assert [way["name"] for way in ways[other["id"]]] == ["drop"]
    assert [(way["name"], way["classes_gone"]) for way in ways[model["id"]]] == [
        ("drop", []),
        ("subtract", ["bee"]),
    ]


def test_says_what_is_not_exact_where_rows_are_not_stored_any_more(client, service, model):
    with service.db.begin() as session:
        row = session.get_one(Dataset, ids.decode("dst", model["dataset"]))
        row.deleted_at = clock(session)
    found = look(client, ["row-0"], scope="samples")
    ways = [one["way"]["name"] for one in found["models"][0]["versions"]]
    shares = [
        client.get(f"/v1/models/{model['id']}/versions/{number}").json()["exactly_removable"]
        for number in (1, 2)
    ]
    assert shares == [0.0, 3 / 9]
    assert "rows-not-retained" in codes(found)
    assert found["exactly_removable"]["rows"] == (0.0 if "drop" in ways else 1.0)


def test_an_unknown_person_touches_nothing(client, model):
    found = look(client, ["ADA@example.org"])  # never case-folded
    assert (found["found"], found["samples"], found["models"], found["exports"]) == (0, 0, [], [])
    assert found["exactly_removable"] == {"rows": None, "persons": None}


def test_is_for_those_who_may_ask_and_about_what_is_theirs(client, model, key_with, stranger):
    body = {"scope": "subject", "targets": [ADA]}
    url = "/v1/forget-requests/preview"
    assert client.post(url, json=body, headers=key_with("read")).status_code == 403
    assert client.post(url, json=body, headers=key_with("forget:create")).status_code == 200
    assert client.post(url, json=body, headers=stranger).json()["samples"] == 0
    rows = {"scope": "samples", "targets": [{"dataset": model["dataset"], "positions": [0]}]}
    assert client.post(url, json=rows, headers=stranger).status_code == 404
    refused = client.post(url, json={**body, "targets": []})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")


def test_the_items_of_a_request_are_what_its_preview_showed(client, service, tenant, model):
    dataset_id = ids.decode("dst", model["dataset"])
    row = request(service, tenant.id, rows={dataset_id: [0]})
    with service.db.begin() as session:
        rows = {dataset_id: {0}}
        found = closure.of(session, tenant.id, rows)
        versions = [one.version.id for line in found.versions.values() for one in line]
        for _ in range(2):  # a second time changes nothing
            closure.store(session, session.get_one(ForgetRequest, row.id), rows, versions)
        [export] = session.scalars(select(Export.id))
    with service.db.read() as session:
        items = session.scalars(select(ForgetItem).order_by(ForgetItem.kind)).all()
        assert [(one.kind, one.resource_id, one.state) for one in items] == [
            ("dataset", dataset_id, "located"),
            ("export", export, "listed"),
        ]
