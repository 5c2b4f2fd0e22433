"""Models over HTTP."""

import pytest
import torch
from safetensors.torch import save

from app import ids
from app.methods import networks
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.tables import Version
from tests.api.teaching import a_dataset, a_model, create, teach, update
from tests.services.learning import WIDTH, rows, run_next

MLP = {"name": "mlp", "params": {"hidden": [8]}}


def test_makes_a_model_with_every_default_shown(client):
    answer = create(client, name="animals")
    model = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v1/models/{model['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert model["input"] == {"kind": "vector", "shape": [WIDTH], "grid": "normalised", "target": None}
    assert (model["expansion"], model["ridge"], model["keep_versions"]) == (None, {"k": -4}, 5)
    assert model["network"] == {"name": "identity", "params": {}, "weights": None}
    assert (model["evaluation"], model["min_centroid_rows"], model["revision"]) == (None, 5, 1)
    assert client.get(f"/v1/models/{model['id']}").json() == model


@pytest.mark.parametrize(
    "fields",
    [
        {"expansion": {"width": 64, "seed": 7}, "ridge": "gcv", "keep_versions": 2},
        {"ridge": {"k": -18}},
        {
            "task": "regression",
            "input": {
                "kind": "table",
                "shape": [3],
                "grid": {"exponent": -8},
                "target": {"exponent": -4},
            },
        },
    ],
)
def test_keeps_the_settings_of_exact_heads(client, fields):
    model = a_model(client, **fields)
    assert {name: model[name] for name in fields} == fields
    assert client.get(f"/v1/models/{model['id']}").json() == model


def test_says_how_much_memory_a_width_would_need(client):
    answer = create(client, expansion={"width": 16_384})
    assert "8.9 GiB" in answer.json()["detail"]
    assert "8.0 GiB" in answer.json()["detail"]


@pytest.mark.parametrize(
    "fields", [{"expansion": {"width": 8}}, {"ridge": "gcv"}, {"input": {"kind": "vector", "shape": [4]}}]
)
def test_settings_of_heads_never_change(client, fields):
    model = a_model(client)
    url, headers = f"/v1/models/{model['id']}", {"If-Match": '"1"'}
    assert client.patch(url, json=fields, headers=headers).status_code == 422
    assert client.get(url).json() == model


def test_changes_how_many_versions_are_kept(client):
    model = a_model(client)
    assert model["on_taint"] == "serve-until-replaced"
    body = {"keep_versions": 9, "on_taint": "suspend"}
    answer = client.patch(f"/v1/models/{model['id']}", json=body, headers={"If-Match": '"1"'})
    assert (answer.json()["keep_versions"], answer.json()["on_taint"]) == (9, "suspend")


def test_keeps_names_in_every_script(client):
    name = "مدل 模型 🐜 " + "é" * 150
    model = a_model(client, name=name)
    assert client.get(f"/v1/models/{model['id']}").json()["name"] == name


@pytest.mark.parametrize("task", ["retrieval", "generation"])
def test_refuses_a_task_that_no_method_serves(client, task):
    refused(create(client, task=task), "unsupported-task", "/task")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"task": "magic"}, "/task"),
        ({"name": ""}, "/name"),
        ({"name": "a" * 201}, "/name"),
        ({"name": "a\u202eb"}, "/name"),
        ({"keep_versions": 0}, "/keep_versions"),
        ({"on_taint": "hope"}, "/on_taint"),
        ({"ridge": {"k": -41}}, "/ridge"),
        ({"ridge": "loo"}, "/ridge"),
        ({"expansion": {"width": 0, "seed": 1}}, "/expansion/width"),
        ({"expansion": {"width": 100, "size": 1}}, "/expansion/size"),
        ({"expansion": {"width": 16_384}}, "/expansion/width"),
        ({"task": "regression"}, "/input/target"),
        ({"input": {"kind": "vector", "shape": [4], "target": {"exponent": 1}}}, "/input/target"),
        ({"input": {"kind": "vector", "shape": [4, 4]}}, "/input"),
        ({"input": {"kind": "sound", "shape": [4]}}, "/input/kind"),
        ({"input": {"kind": "vector", "shape": [0]}}, "/input/shape"),
        ({"input": {"kind": "vector", "shape": [4], "grid": {"exponent": 99}}}, "/input/grid"),
        ({"network": {"name": "transformer"}}, "/network/name"),
        ({"network": {"name": "convnet"}}, "/network/name"),
        ({"network": {"name": "mlp", "params": {"hidden": [0]}}}, "/network/params/hidden"),
        ({"network": {"name": "mlp", "params": {"depth": 2}}}, "/network/params/depth"),
        ({"gates": {"min_old": 2}}, "/gates/min_old"),
        ({"gates": {"min_calibration": 0.1}}, "/gates/min_calibration"),
        ({"min_centroid_rows": 0}, "/min_centroid_rows"),
    ],
)
def test_refuses_what_it_cannot_honour(client, fields, pointer):
    refused(create(client, **fields), "validation-failed", pointer)
    assert client.get("/v1/models").json()["items"] == []


def test_refuses_a_name_that_is_taken(client):
    a_model(client, name="animals")
    answer = create(client, name="animals")
    assert (answer.status_code, answer.json()["code"]) == (409, "name-conflict")


def test_lets_two_tenants_use_one_name(client, stranger):
    a_model(client, name="animals")
    body = {"name": "animals", "task": "classification", "input": {"kind": "vector", "shape": [4]}}
    assert client.post("/v1/models", json=body, headers=stranger).status_code == 201


def test_shows_no_model_of_another_tenant(client, stranger):
    model = a_model(client)
    path = f"/v1/models/{model['id']}"
    calls = [
        client.get(path, headers=stranger),
        client.patch(path, json={}, headers={**stranger, "If-Match": "*"}),
        client.delete(path, headers={**stranger, "If-Match": "*"}),
        client.get(f"{path}/versions", headers=stranger),
        client.get(f"{path}/versions/1", headers=stranger),
        client.get(f"{path}/classes", headers=stranger),
        client.get(f"{path}/aliases", headers=stranger),
        client.get(f"{path}/history", headers=stranger),
    ]
    assert [answer.status_code for answer in calls] == [404] * len(calls)
    assert client.get("/v1/models", headers=stranger).json()["items"] == []
    assert client.get(path).json()["revision"] == 1


def test_lists_models_oldest_first_in_pages(client):
    made = [a_model(client)["id"] for _ in range(3)]
    first = client.get("/v1/models", params={"page_size": 2}).json()
    rest = client.get("/v1/models", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == made
    assert rest["next_page_token"] == ""


def test_finds_a_model_by_name(client):
    a_model(client, name="one")
    wanted = a_model(client, name="two")
    found = client.get("/v1/models", params={"name": "two"}).json()["items"]
    assert [item["id"] for item in found] == [wanted["id"]]


def test_answers_304_to_who_has_it(client):
    model = a_model(client)
    path = f"/v1/models/{model['id']}"
    etag = client.get(path).headers["ETag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_changes_only_what_was_read(client):
    model = a_model(client)
    path = f"/v1/models/{model['id']}"
    assert client.patch(path, json={"min_centroid_rows": 2}).status_code == 428
    changed = client.patch(path, json={"min_centroid_rows": 2}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    late = client.patch(path, json={"min_centroid_rows": 3}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "precondition-failed")
    assert client.get(path).json()["min_centroid_rows"] == 2


def test_leaves_alone_what_a_change_does_not_name(client):
    model = a_model(client, gates={"min_new": 0.5}, min_centroid_rows=9)
    path = f"/v1/models/{model['id']}"
    changed = client.patch(path, json={"gates": {"max_forgetting": 0.1}}, headers={"If-Match": "*"}).json()
    assert changed["gates"] == {"min_old": None, "min_new": None, "max_forgetting": 0.1}
    assert changed["min_centroid_rows"] == 9
    refused(
        client.patch(path, json={"name": "other"}, headers={"If-Match": "*"}), "validation-failed", "/name"
    )


def test_checks_that_an_evaluation_fits(client):
    wide = a_dataset(client, width=WIDTH + 1)
    refused(create(client, evaluation=wide), "dimension-mismatch", "/evaluation")
    model = a_model(client, evaluation=a_dataset(client))
    path = f"/v1/models/{model['id']}"
    answer = client.patch(path, json={"evaluation": "dst_" + "0" * 26}, headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (404, "/evaluation")


def test_measures_versions_on_the_models_evaluation(client, service):
    model = a_model(client, evaluation=a_dataset(client, rows(ant=3, bee=3)))
    assert teach(client, service, model)["metrics"]["rows"] == 6


def test_takes_weights_that_fit_the_network(client):
    upload = upload_weights(client, weights(seed=1))
    model = a_model(client, network={**MLP, "weights": upload})
    assert model["network"]["weights"] == upload


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "nan"])
def test_refuses_weights_that_do_not_fit(client, change):
    tensors = weights(seed=1)
    name = "layers.1.weight"
    if change == "missing":
        del tensors[name]
    elif change == "unknown":
        tensors["extra"] = torch.zeros(2)
    elif change == "shape":
        tensors[name] = torch.zeros(3, 3)
    else:
        tensors[name] = torch.full_like(tensors[name], float("nan"))
    upload = upload_weights(client, tensors)
    refused(create(client, network={**MLP, "weights": upload}), "validation-failed", "/network/weights")


def test_does_not_know_another_tenants_weights(client, stranger):
    theirs = upload_weights(client, weights(seed=1), headers=stranger)
    answer = create(client, network={**MLP, "weights": theirs})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (404, "/network/weights")


def test_deletes_a_model_with_all_that_its_versions_stored(client, service):
    model = a_model(client, name="animals")
    result = teach(client, service, model, alias="production")
    path = f"/v1/models/{model['id']}"
    key_id, file_id = stored_by(service, result["version_id"])

    answer = client.delete(path, headers={"If-Match": "*"})
    assert answer.status_code == 202
    assert answer.json()["kind"] == "purge"
    assert client.get(path).status_code == 410
    assert client.get(f"{path}/versions/1").status_code == 410
    assert client.get(f"{path}/aliases/production").status_code == 410
    assert run_next(service).state == "succeeded"
    with pytest.raises(FileNotFoundError):
        service.vault.keys.open(key_id)
    with pytest.raises(FileNotFoundError):
        service.vault.files.open(file_id)
    assert a_model(client, name="animals")["id"] != model["id"]


def test_cancels_what_waits_for_a_deleted_model(client, service):
    model = a_model(client)
    job = update(client, model, [a_dataset(client)]).json()
    client.delete(f"/v1/models/{model['id']}", headers={"If-Match": "*"})
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_needs_scope_train_to_make_one(client, key_with):
    body = {"name": "m", "task": "classification", "input": {"kind": "vector", "shape": [4]}}
    assert client.post("/v1/models", json=body, headers=key_with("read")).status_code == 403


def weights(seed):
    spec = InputSpec(kind="vector", shape=(WIDTH,))
    return dict(networks.seeded_build(NetworkSpec(**MLP), spec, seed).state_dict())


def upload_weights(client, tensors, headers=None):
    sent = {"Content-Type": "application/x-safetensors", **(headers or {})}
    answer = client.post("/v1/uploads", content=save(tensors), headers=sent)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def stored_by(service, version):
    with service.db.read() as session:
        row = session.get_one(Version, ids.decode("ver", version))
    return row.key_id, row.file_id


def refused(answer, code, pointer):
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code), problem
    assert any(fault["pointer"].startswith(pointer) for fault in problem["errors"]), problem["errors"]
