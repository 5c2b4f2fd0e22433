"""Datasets over HTTP: what is accepted is stored as sent, and read, listed, repeated and deleted."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.services.callers import access
from app.services.erasure import ledger
from app.tables import AuditEvent, LedgerEntry, LedgerTarget, RestrictedRow, Sample, SampleSubject
from tests.api.conftest import both_stacks
from tests.api.sending import every_byte, npy, npz, rows_of, send, traces
from tests.services.asked import approve, request

X = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS = np.array(["wren", "robin", "wren", "eagle"])


@pytest.fixture
def dataset(client):
    answer = send(client, npz(x=X, label=LABELS), "npz", name="birds")
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_answers_201_with_its_rows_classes_and_report(client, dataset):
    assert dataset["name"] == "birds"
    assert dataset["shape"] == [3]
    assert dataset["dtype"] == "float32"
    assert (dataset["rows"], dataset["train_rows"], dataset["eval_rows"]) == (4, 4, 0)
    assert dataset["classes"] == [
        {"name": "eagle", "train": 1, "eval": 0},
        {"name": "robin", "train": 1, "eval": 0},
        {"name": "wren", "train": 2, "eval": 0},
    ]
    assert dataset["report"]["accepted"] == 4


def test_stores_rows_as_sent(service, dataset):
    stored = rows_of(service, dataset["id"])

    assert np.array_equal(stored["x"], X)
    assert stored["labels"] == LABELS.tolist()
    assert stored["positions"].tolist() == [0, 1, 2, 3]


def test_is_read_listed_and_reported(client, dataset):
    path = f"/v1/datasets/{dataset['id']}"

    assert client.get(path).json() == dataset
    assert client.get(f"{path}/report").json() == dataset["report"]
    assert client.get("/v1/datasets").json()["items"] == [dataset]


def test_lists_pages_in_the_order_of_arrival(client):
    sent = [send(client, npy(X + i), "npy").json()["id"] for i in range(3)]

    first = client.get("/v1/datasets", params={"page_size": 2}).json()
    rest = client.get("/v1/datasets", params={"page_size": 2, "page_token": first["next_page_token"]}).json()

    assert [item["id"] for item in first["items"] + rest["items"]] == sent
    assert rest["next_page_token"] == ""


def test_location_names_the_dataset(client):
    answer = send(client, npy(X), "npy")

    assert client.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_label_and_split_of_the_query_hold_for_every_row(client, service):
    answer = send(client, npy(X), "npy", label="wren", split="eval")

    assert answer.json()["classes"] == [{"name": "wren", "train": 0, "eval": 4}]
    assert rows_of(service, answer.json()["id"])["split"].tolist() == [1, 1, 1, 1]


def test_bytes_of_a_live_dataset_give_that_dataset(client, service, dataset):
    before = traces(service)

    again = send(client, npz(x=X, label=LABELS), "npz", name="another name")

    assert again.status_code == 200
    assert again.json() == dataset
    assert traces(service) == {**before, "idempotency_records": before["idempotency_records"] + 1}


def test_the_same_bytes_under_another_label_are_another_dataset(client):
    first = send(client, npy(X), "npy", label="wren")
    second = send(client, npy(X), "npy", label="robin")

    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]


def test_a_key_sent_again_gives_the_same_answer(client, service):
    first = send(client, npy(X), "npy", key="once")
    before = traces(service)

    again = send(client, npy(X), "npy", key="once")

    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert traces(service) == before


@pytest.mark.parametrize("change", [{"body": npy(X + 1)}, {"label": "wren"}])
def test_a_key_sent_with_something_else_is_refused(client, service, change):
    send(client, npy(X), "npy", key="once")
    before = traces(service)

    again = send(client, change.pop("body", npy(X)), "npy", key="once", **change)

    assert (again.status_code, again.json()["code"]) == (422, "idempotency-mismatch")
    assert traces(service) == before


def test_a_key_of_a_failed_upload_can_be_used_again(client):
    assert send(client, npy(X * np.nan), "npy", key="once").status_code == 422

    assert send(client, npy(X), "npy", key="once").status_code == 201


def test_needs_an_idempotency_key(client):
    answer = client.post("/v1/datasets", content=npy(X), headers={"Content-Type": "application/x-npy"})

    assert (answer.status_code, answer.json()["code"]) == (400, "missing-idempotency-key")


def test_needs_the_scope_ingest(client, key_with):
    answer = send(client, npy(X), "npy", headers=key_with("read"))

    assert (answer.status_code, answer.json()["code"]) == (403, "missing-scope")


def test_another_tenant_meets_404(client, dataset, stranger):
    path = f"/v1/datasets/{dataset['id']}"

    for method, at in (("GET", path), ("GET", f"{path}/report"), ("DELETE", path)):
        assert client.request(method, at, headers=stranger).status_code == 404
    assert client.get("/v1/datasets", headers=stranger).json()["items"] == []


def test_the_bytes_of_another_tenant_are_no_duplicate(client, dataset, stranger):
    answer = send(client, npz(x=X, label=LABELS), "npz", headers=stranger)

    assert answer.status_code == 201
    assert answer.json()["id"] != dataset["id"]


def test_acceptance_is_audited_by_ids_only(client, service, dataset):
    with service.db.read() as session:
        event = session.scalars(select(AuditEvent).filter_by(action="dataset.accepted")).one()

    assert event.resources == {"dataset": ids.decode("dst", dataset["id"]).hex}


def test_delete_answers_202_with_a_job_and_then_410(client, dataset):
    path = f"/v1/datasets/{dataset['id']}"

    answer = client.delete(path)

    assert answer.status_code == 202
    assert answer.json()["kind"] == "purge"
    assert answer.json()["resource"] == dataset["id"]
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    for gone in (client.get(path), client.get(f"{path}/report"), client.delete(path)):
        assert (gone.status_code, gone.json()["code"]) == (410, "purged")
        assert dataset["id"] in gone.json()["detail"]
    assert client.get("/v1/datasets").json()["items"] == []


def test_bytes_of_a_deleted_dataset_are_new(client, dataset):
    client.delete(f"/v1/datasets/{dataset['id']}")

    again = send(client, npz(x=X, label=LABELS), "npz")

    assert again.status_code == 201
    assert again.json()["id"] != dataset["id"]


def test_persons_are_kept_as_keyed_digests(client, service):
    person = "Canary Müller-Ünlikely"
    body = npz(
        x=X,
        sample_id=["canary-row-0", "canary-row-1", "", "canary-row-3"],
        subject=[person, "canary other", "  " + person],
        subject_row=[3, 3, 0],
    )

    answer = send(client, body, "npz")

    tenant = access.tenants(service)[0].id
    dataset_id = ids.decode("dst", answer.json()["id"])
    with service.db.read() as session:
        samples = session.scalars(select(Sample).filter_by(dataset_id=dataset_id)).all()
        persons = session.scalars(select(SampleSubject).filter_by(dataset_id=dataset_id)).all()
    digest = access.digester(service, tenant)
    assert {row.position: row.sample_digest for row in samples} == {
        0: digest("canary-row-0"),
        1: digest("canary-row-1"),
        3: digest("canary-row-3"),
    }
    assert {(row.position, row.subject_digest) for row in persons} == {
        (0, digest(person)),
        (3, digest(person)),
        (3, digest("canary other")),
    }


def test_the_text_of_a_person_is_written_nowhere(client, service, caplog):
    caplog.set_level(logging.DEBUG)
    person = "canary-subject-7f3a"
    accepted = send(
        client, npz(x=X, subject=[person] * 4, sample_id=[f"{person}-{i}" for i in range(4)]), "npz"
    )
    refused = send(client, npz(x=X * np.nan, subject=[person] * 4), "npz")
    repeated = send(client, npz(x=X + 1, sample_id=[person] * 4), "npz")

    assert [accepted.status_code, refused.status_code, repeated.status_code] == [201, 422, 422]
    for place in (every_byte(service), caplog.text.encode(), refused.content, repeated.content):
        assert person.encode() not in place


def erase(service, target):
    with service.db.begin() as session:
        tenant = access.tenants(service)[0].id
        entry = LedgerEntry(
            tenant_id=tenant,
            request_id=ids.new(),
            kind="approve",
            scope="subject",
            actor="test",
            created_at=access.tenants(service)[0].created_at,
        )
        session.add(entry)
        session.flush()
        session.add(LedgerTarget(sequence=entry.sequence, target=target, tenant_id=tenant))
        return entry.request_id


@pytest.fixture
def erased(service):
    """A person in the ledger."""
    digest = access.digest(service, access.tenants(service)[0].id, "Ada")
    return erase(service, f"subject:{digest}")


def test_rows_of_an_erased_person_are_refused(client, service, erased):
    before = traces(service)

    answer = send(client, npz(x=X, subject=["Bob", "Ada", "Bob", "Eve"]), "npz")

    assert (answer.status_code, answer.json()["code"]) == (409, "subject-erased")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/x/1"]
    assert answer.json()["related"] == [ids.forget_path(erased)]
    assert "Ada" not in answer.text
    assert traces(service) == before


def test_an_erased_sample_is_refused(client, service):
    erase(service, f"sample:{access.digest(service, access.tenants(service)[0].id, 'row-2')}")

    answer = send(client, npz(x=X, sample_id=["row-0", "row-1", "row-2", "row-3"]), "npz")

    assert (answer.status_code, answer.json()["code"]) == (409, "subject-erased")


def test_quarantine_leaves_rows_of_erased_persons_out(client, service, erased):
    answer = send(client, npz(x=X, subject=["Bob", "Ada", "Bob", "Eve"]), "npz", on_invalid="quarantine")

    assert answer.status_code == 201
    assert answer.json()["report"]["rejected"] == 1
    assert rows_of(service, answer.json()["id"])["positions"].tolist() == [0, 2, 3]


def test_reconsent_takes_rows_of_an_erased_person_and_is_audited(client, service, erased):
    answer = send(client, npz(x=X, subject=["Bob", "Ada", "Bob", "Eve"]), "npz", reconsent=True)

    assert answer.status_code == 201
    with service.db.read() as session:
        [event] = session.scalars(select(AuditEvent).filter_by(action="dataset.reconsented")).all()
    dataset = ids.decode("dst", answer.json()["id"])
    assert event.resources == {"dataset": dataset.hex, "forget_request": erased.hex}


def test_a_lifted_erasure_refuses_nothing(client, service, erased):
    with service.db.begin() as session:
        approve = session.scalars(select(LedgerEntry)).one()
        session.add(
            LedgerEntry(
                tenant_id=approve.tenant_id,
                request_id=erased,
                kind="lift",
                scope="subject",
                actor="test",
                created_at=approve.created_at,
            )
        )

    assert send(client, npz(x=X, subject=["Bob", "Ada", "Bob", "Eve"]), "npz").status_code == 201


def test_unusable_rows_are_left_out_and_counted_on_request(client, service):
    x = X.copy()
    x[1, 2] = np.inf

    answer = send(client, npz(x=x, label=LABELS), "npz", on_invalid="quarantine")

    report = answer.json()["report"]
    assert (report["rows"], report["accepted"], report["quarantined"]) == (4, 3, 1)
    assert report["reasons"] == [{"reason": "non-finite", "count": 1, "rows": [1]}]
    assert {"reason": "empty-class", "count": 1, "classes": ["robin"], "features": []} in report["warnings"]
    stored = rows_of(service, answer.json()["id"])
    assert stored["positions"].tolist() == [0, 2, 3]
    assert np.array_equal(stored["x"], X[[0, 2, 3]])


def test_constant_features_and_equal_rows_are_reported(client):
    x = np.array([[1, 5, 0], [2, 5, 0], [1, 5, 0]], dtype=np.float32)

    warnings = send(client, npy(x), "npy").json()["report"]["warnings"]

    assert {"reason": "constant-feature", "count": 2, "classes": [], "features": [1, 2]} in warnings
    assert {"reason": "duplicate", "count": 1, "classes": [], "features": []} in warnings


def test_one_row_and_one_class_are_accepted(client):
    assert send(client, npz(x=X[:1], label=["wren"]), "npz").status_code == 201


def test_labels_are_compared_in_their_composed_form(client):
    answer = send(client, npz(x=X, label=["é", "é", " é ", "e"]), "npz")

    assert [one["name"] for one in answer.json()["classes"]] == ["e", "é"]


def test_two_hundred_characters_and_emoji_come_back_unchanged(client):
    names = ["шапка " + "ш" * 194, "🐦‍🔥", "עורב", "カラス"]

    answer = send(client, npz(x=X, label=names), "npz")

    assert answer.status_code == 201, answer.text
    assert {one["name"] for one in answer.json()["classes"]} == set(names)


@both_stacks
def test_rows_that_a_request_names_arrive_restricted_or_erased_for_its_models(client, service, tenant):
    ada, bob = (f"subject:{access.digest(service, tenant.id, name)}" for name in ("Ada", "Bob"))
    model = ids.new()
    asked = request(service, tenant.id, scope="subject", targets=[ada])
    limited = request(service, tenant.id, scope="subject", targets=[bob], models=[SimpleNamespace(id=model)])
    approve(service, limited)

    sent = send(client, npz(x=X, subject=["Bob", "Ada", "Bob", "Eve"]), "npz")

    assert sent.status_code == 201, sent.text
    dataset = ids.decode("dst", sent.json()["id"])
    with service.db.read() as session:
        restricted = session.scalars(select(RestrictedRow)).all()
        assert [(one.dataset_id, one.position, one.request_id) for one in restricted] == [
            (dataset, 1, asked.id)
        ]
        assert ledger.unusable(session, [dataset], model) == {dataset: {0, 1, 2}}
        assert ledger.unusable(session, [dataset], ids.new()) == {dataset: {1}}
