"""Updates over HTTP: what is accepted, and what is refused with which field."""

import pytest
from sqlalchemy import func, select

from app import ids
from app.tables import Dataset, Job
from tests.api.sending import npz, send
from tests.api.teaching import a_dataset, a_model, teach, update
from tests.services.learning import WIDTH, erase, rows, run_next


def test_answers_with_a_durable_job(client, service):
    model = a_model(client)
    answer = update(client, model, [a_dataset(client)])
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "2"
    assert (job["kind"], job["state"], job["model"]) == ("update", "queued", model["id"])
    assert client.get(answer.headers["Location"]).json()["id"] == job["id"]


def test_teaches_a_version_that_can_be_read(client, service):
    model = a_model(client)
    result = teach(client, service, model, rows(bee=4, ant=4))
    version = client.get(f"/v1/models/{model['id']}/versions/{result['version']}").json()
    assert version["method"] == {"name": "ncm", "params": {"metric": "cosine"}}
    assert [entry["name"] for entry in version["classes"]] == ["ant", "bee"]
    assert version["id"] == result["version_id"]


def test_has_one_effect_for_one_key(client, service):
    model, dataset = a_model(client), a_dataset(client)
    first = update(client, model, [dataset], key="one")
    again = update(client, model, [dataset], key='"one"')
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert jobs_of(service) == 1
    other = update(client, model, [dataset], key="one", seed=1)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")


def test_needs_an_idempotency_key(client):
    model = a_model(client)
    body = {"datasets": [a_dataset(client)], "method": {"name": "ncm"}}
    answer = client.post(f"/v1/models/{model['id']}/updates", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "missing-idempotency-key")


def test_does_not_keep_a_refusal_under_its_key(client):
    model = a_model(client)
    assert update(client, model, ["dst_" + "0" * 26], key="one").status_code == 404
    assert update(client, model, [a_dataset(client)], key="one").status_code == 202


def test_waits_no_longer_than_it_is_asked_to(client):
    answer = update(client, a_model(client), [a_dataset(client)], headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=1")
    assert answer.json()["done"] is False


def test_needs_scope_train(client, key_with):
    model, dataset = a_model(client), a_dataset(client)
    answer = update(client, model, [dataset], headers=key_with("read", "ingest"))
    assert (answer.status_code, answer.json()["code"]) == (403, "missing-scope")


def test_does_not_know_another_tenants_model(client, stranger):
    answer = update(client, a_model(client), [a_dataset(client)], headers=stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_does_not_know_another_tenants_dataset(client, stranger):
    theirs = send(client, npz(x=[[1.0, 2, 3, 4]] * 2, label=["a", "b"]), "npz", headers=stranger).json()
    refused(update(client, a_model(client), [theirs["id"]]), 404, "not-found", "/datasets/0")


def test_refuses_a_deleted_dataset(client):
    dataset = a_dataset(client)
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 202
    refused(update(client, a_model(client), [dataset]), 410, "purged", "/datasets/0")


def test_refuses_rows_of_another_width(client):
    wide = a_dataset(client, width=WIDTH + 1)
    refused(
        update(client, a_model(client), [a_dataset(client), wide]), 422, "dimension-mismatch", "/datasets/1"
    )


def test_refuses_vectors_for_a_model_of_images(client):
    model = a_model(client, input={"kind": "image", "shape": [2, 2]})
    refused(update(client, model, [a_dataset(client)]), 422, "dimension-mismatch", "/datasets/0")


def test_refuses_rows_without_labels(client):
    dataset = send(client, npz(x=[[1.0, 2, 3, 4]] * 2), "npz").json()["id"]
    refused(update(client, a_model(client), [dataset]), 422, "validation-failed", "/datasets/0")


def test_refuses_a_dataset_that_only_measures(client):
    dataset = a_dataset(client, split=["eval"] * 8)
    refused(update(client, a_model(client), [dataset]), 422, "too-few-samples", "/datasets/0")


@pytest.mark.parametrize("labels", [["ant"], ["ant"] * 5], ids=["one sample", "one class"])
def test_refuses_a_first_version_of_one_class(client, labels):
    refused(update(client, a_model(client), [a_dataset(client, labels)]), 422, "too-few-samples", "/datasets")


def test_learns_a_class_of_one_sample(client, service):
    model = a_model(client)
    teach(client, service, model)
    assert teach(client, service, model, ["cat"])["classes_added"] == ["cat"]


def test_refuses_a_known_class_with_its_id(client, service):
    model = a_model(client)
    teach(client, service, model, rows(ant=3, bee=3))
    known = client.get(f"/v1/models/{model['id']}/classes").json()["items"]
    answer = update(client, model, [a_dataset(client, rows(cat=2, ant=2))])
    refused(answer, 409, "class-name-conflict", "/datasets/0")
    assert answer.json()["related"] == [f"/v1/models/{model['id']}/classes/{known[0]['id']}"]


@pytest.mark.parametrize("name", ["ANT", "\u0430nt", "ant\u200b"])
def test_refuses_a_name_that_looks_like_a_known_one(client, service, name):
    model = a_model(client)
    teach(client, service, model, rows(ant=3, bee=3))
    answer = update(client, model, [a_dataset(client, [name] * 2)], on_conflict="extend")
    refused(answer, 409, "class-name-conflict", "/datasets/0")


def test_takes_a_name_with_spaces_around_it_as_the_same_name(client, service):
    model = a_model(client)
    teach(client, service, model, rows(ant=3, bee=3))
    assert teach(client, service, model, [" ant "] * 2, on_conflict="extend")["classes_added"] == []


def test_adds_rows_to_a_known_class_when_asked(client, service):
    model = a_model(client)
    teach(client, service, model, rows(ant=3, bee=3))
    result = teach(client, service, model, rows(ant=2, cat=2), on_conflict="extend")
    version = client.get(f"/v1/models/{model['id']}/versions/{result['version']}").json()
    assert {entry["name"]: entry["count"] for entry in version["classes"]} == {"ant": 5, "bee": 3, "cat": 2}


def test_refuses_rows_that_were_learned_before(client, service):
    model, dataset = a_model(client), a_dataset(client)
    assert update(client, model, [dataset]).status_code == 202
    run_next(service)
    answer = update(client, model, [dataset], on_conflict="extend")
    refused(answer, 409, "already-used", "/datasets/0")


def test_refuses_a_method_that_needs_a_trained_network(client):
    model = a_model(client, network={"name": "mlp"})
    refused(update(client, model, [a_dataset(client)], "fetril"), 409, "missing-data", "/method/name")


def test_refuses_to_train_where_there_is_nothing_to_train(client):
    answer = update(client, a_model(client), [a_dataset(client)], "supervised")
    refused(answer, 409, "missing-data", "/method/name")


def test_refuses_to_train_a_second_time(client, service):
    model = a_model(client, network={"name": "mlp", "params": {"hidden": [4]}})
    update(client, model, [a_dataset(client)], "supervised", {"epochs": 1, "batch_size": 8})
    assert run_next(service).state == "succeeded"
    answer = update(client, model, [a_dataset(client, rows(cat=3, dog=3))], "supervised")
    refused(answer, 409, "missing-data", "/method/name")


def test_leaves_to_the_claim_what_a_queued_update_may_change(client, service):
    model = a_model(client, network={"name": "mlp", "params": {"hidden": [4]}})
    update(client, model, [a_dataset(client)], "supervised", {"epochs": 1, "batch_size": 8})
    answer = update(client, model, [a_dataset(client, rows(cat=3))], "ncm")
    assert answer.status_code == 202
    assert [run_next(service).state for _ in range(2)] == ["succeeded", "succeeded"]


def test_refuses_a_base_that_does_not_exist(client, service):
    model = a_model(client)
    teach(client, service, model)
    refused(update(client, model, [a_dataset(client, ["cat"])], base=7), 404, "not-found", "/base")


def test_refuses_a_tainted_base_and_names_another(client, service):
    model = a_model(client)
    teach(client, service, model)
    second = a_dataset(client, rows(cat=3))
    update(client, model, [second])
    run_next(service)
    with service.db.read() as session:
        row = session.get_one(Dataset, ids.decode("dst", second))
    erase(service, row.tenant_id, row, 0)
    answer = update(client, model, [a_dataset(client, rows(dog=3))], base=2)
    refused(answer, 409, "version-tainted", "/base")
    assert answer.json()["related"] == [f"/v1/models/{model['id']}/versions/1"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"alias": "latest"}, "/alias"),
        ({"alias": "Not A Name"}, "/alias"),
        ({"base": 0}, "/base"),
        ({"on_conflict": "merge"}, "/on_conflict"),
        ({"ridge": 1}, "/ridge"),
        ({"datasets": None}, "/datasets"),
        ({"method": {"name": "magic"}}, "/method"),
        ({"method": {"name": "ncm", "params": {"metric": "manhattan"}}}, "/method/params/metric"),
        ({"method": {"name": "ncm", "params": {"k": 3}}}, "/method/params/k"),
        ({"method": {"name": "fetril", "params": {"C": 0}}}, "/method/params/C"),
        ({"evaluation": "dst_nothing"}, "/evaluation"),
    ],
)
def test_refuses_a_field_it_cannot_honour(client, fields, pointer):
    body = {"datasets": [a_dataset(client)], "method": {"name": "ncm"}, **fields}
    model = a_model(client)
    headers = {"Idempotency-Key": "one"}
    answer = client.post(f"/v1/models/{model['id']}/updates", json=body, headers=headers)
    refused(answer, 422, "validation-failed", pointer)


def test_makes_another_head_without_data(client, service):
    model = a_model(client)
    teach(client, service, model, method="lda")
    answer = update(client, model, [], method="analytic")
    assert answer.status_code == 202, answer.text
    assert run_next(service).result["version"] == 2


def test_refuses_to_make_a_head_of_nothing(client):
    refused(update(client, a_model(client), [], method="lda"), 409, "missing-data", "/datasets")


def test_refuses_no_data_where_a_method_needs_rows(client, service):
    model = a_model(client)
    teach(client, service, model)
    refused(update(client, model, [], method="fetril"), 409, "missing-data", "/datasets")


def test_refuses_a_head_too_wide_for_the_memory(client):
    wide = a_model(client, input={"kind": "vector", "shape": [20_000]})
    data = a_dataset(client, width=20_000)
    answer = update(client, wide, [data], method="lda")
    refused(answer, 422, "validation-failed", "/method/name")
    assert "13.1 GiB" in answer.json()["detail"]


def test_refuses_a_dataset_that_is_named_twice(client):
    dataset = a_dataset(client)
    refused(update(client, a_model(client), [dataset, dataset]), 422, "validation-failed", "/datasets")


def test_refuses_an_evaluation_of_another_width(client):
    wide = a_dataset(client, width=WIDTH + 2)
    answer = update(client, a_model(client), [a_dataset(client)], evaluation=wide)
    refused(answer, 422, "dimension-mismatch", "/evaluation")


def test_leaves_no_job_behind_when_it_refuses(client, service):
    update(client, a_model(client), [a_dataset(client, width=WIDTH + 1)])
    assert jobs_of(service) == 0


def test_refuses_an_unknown_query_field(client):
    model = a_model(client)
    body = {"datasets": [a_dataset(client)], "method": {"name": "ncm"}}
    answer = client.post(
        f"/v1/models/{model['id']}/updates?dry=1", json=body, headers={"Idempotency-Key": "one"}
    )
    assert answer.status_code == 400


def refused(answer, status, code, pointer):
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(fault["pointer"].startswith(pointer) for fault in problem["errors"]), problem["errors"]


def jobs_of(service):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(Job).where(Job.kind == "update"))
