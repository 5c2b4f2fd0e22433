"""Datasets that are sent only to be forgotten: who may, what they are good for, when they go."""

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.errors import ArtifactCorrupt
from app.services.datasets import sent_again
from app.tables import Dataset, SampleSubject
from tests.api.conftest import both_stacks
from tests.api.sending import npz, send, traces
from tests.api.teaching import a_dataset, a_model, create, update
from tests.services.learning import WIDTH, rows, run_all

LABELS = rows(ant=4, bee=4)
X = np.random.default_rng(0).standard_normal((8, WIDTH)).astype(np.float32)


def again(client, *positions, headers=None, **arrays):
    """The answer to these rows, sent to be forgotten."""
    index = list(positions)
    body = npz(x=X[index], label=np.array([LABELS[i] for i in index]), **arrays)
    return send(client, body, "npz", headers=headers, for_forget="true")


def forget(client, targets, scope="samples", headers=None, **fields):
    sent = {"Idempotency-Key": ids.new().hex, **(headers or {})}
    body = {"scope": scope, "targets": targets, **fields}
    answer = client.post("/v1/forget-requests", json=body, headers=sent)
    assert answer.status_code == 202, answer.text
    return answer.json()


def is_gone(client, dataset):
    return client.get(f"/v1/datasets/{dataset}").status_code == 410


@both_stacks
def test_a_person_of_a_deleted_dataset_is_forgotten_once_the_rows_are_sent(client, service):
    model = a_model(client)
    dataset = a_dataset(client, LABELS, x=X, subject=np.array([f"p{i}@example.org" for i in range(8)]))
    assert update(client, model, [dataset], "ncm").status_code == 202
    run_all(service, may_fail=True)
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 202
    run_all(service, may_fail=True)
    preview = {"scope": "subject", "targets": ["p1@example.org"]}
    seen = client.post("/v1/forget-requests/preview", json=preview).json()
    [way] = [one["way"] for one in seen["models"][0]["versions"]]
    assert way["name"] == "drop"
    assert "they can be sent again; the request waits as failed for a retry with them" in way["reason"]
    assert any(one["code"] == "rows-not-retained" and "1 row" in one["detail"] for one in seen["uncovered"])

    asked = forget(client, ["p1@example.org"], "subject")
    run_all(service, may_fail=True)
    url = f"/v1/forget-requests/{asked['id']}"
    waiting = client.get(url).json()
    assert (waiting["state"], waiting["exceptions"][0]["code"]) == ("failed", "rows-not-retained")

    rows_again = again(client, 1, subject=np.array(["p1@example.org"])).json()["id"]  # who is erased
    assert client.post(f"{url}/retry", json={"rows": rows_again}).status_code == 202
    run_all(service, may_fail=True)
    done = client.get(url).json()
    assert (done["state"], done["exceptions"]) == ("completed", [])
    assert done["evidence"]["sent_again"] == {"rows": 1, "unmatched": 0}
    assert is_gone(client, rows_again)


def test_whom_the_rows_name_is_not_kept(client, service):
    assert again(client, 0, subject=np.array(["ada@example.org"])).status_code == 201
    with service.db.read() as session:
        assert session.scalars(select(SampleSubject)).all() == []


def test_nothing_learns_or_measures_them(client, service):
    found = again(client, *range(8)).json()
    assert found["for_forget"] is True
    model = a_model(client)
    learned = update(client, model, [found["id"]])
    assert (learned.status_code, learned.json()["errors"][0]["pointer"]) == (422, "/datasets/0")
    measured = update(client, model, [a_dataset(client)], evaluation=found["id"])
    assert (measured.status_code, measured.json()["errors"][0]["pointer"]) == (422, "/evaluation")
    for_good = create(client, evaluation=found["id"])
    assert for_good.status_code == 422
    offered = send(client, npz(x=X, label=np.array(LABELS)), "npz", for_forget="true", model=model["id"])
    assert (offered.status_code, offered.json()["errors"][0]["pointer"]) == (422, "model")
    assert traces(service)["datasets"] == 2


def test_the_same_bytes_to_learn_are_another_dataset(client):
    body = npz(x=X, label=np.array(LABELS))
    learned = send(client, body, "npz").json()["id"]
    assert send(client, body, "npz", for_forget="true").json()["id"] != learned
    assert send(client, body, "npz").json()["id"] == learned


def test_whoever_may_ask_to_forget_may_send_them_and_no_others(client, key_with):
    clerk = key_with("forget:create")
    assert again(client, 0, headers=clerk).status_code == 201
    assert send(client, npz(x=X), "npz", headers=clerk).status_code == 403
    assert again(client, 1, headers=key_with("read")).status_code == 403


@pytest.mark.parametrize("end", ["reject", "cancel"])
def test_they_go_with_a_request_that_is_not_carried_out(client, service, key_with, end):
    dataset = a_dataset(client, LABELS, x=X)
    sent = again(client, 0).json()["id"]
    clerk = key_with("forget:create")
    asked = forget(client, [{"dataset": dataset, "positions": [0]}], headers=clerk, rows=sent)
    assert client.get(f"/v1/forget-requests/{asked['id']}").json()["state"] == "awaiting-approval"
    url = f"/v1/forget-requests/{asked['id']}/{end}"
    assert client.post(url, json={"reason": "no"}).status_code == 200
    assert is_gone(client, sent)
    run_all(service, may_fail=True)
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(ids.decode("dst", sent))


def test_they_go_after_three_days_unless_an_open_request_names_them(client, service, key_with):
    dataset = a_dataset(client, LABELS, x=X)
    fresh, unused, named = (again(client, i).json()["id"] for i in range(3))
    target = [{"dataset": dataset, "positions": [0]}]
    forget(client, target, headers=key_with("forget:create"), rows=named)
    with service.db.begin() as session:
        for id in (unused, named):
            session.get_one(Dataset, ids.decode("dst", id)).created_at -= timedelta(hours=73)
    assert sent_again.sweep(service) == 1
    assert [is_gone(client, id) for id in (fresh, unused, named)] == [False, True, False]
    assert sent_again.sweep(service) == 0
