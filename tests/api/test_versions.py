"""Versions, classes and centroids over HTTP."""

import io

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.methods.parts.grid import quantise
from app.services.models.versions import path as version_path
from app.tables import Base, Dataset, Version
from tests.api.sending import npz, send
from tests.api.teaching import a_dataset, a_model, teach, update
from tests.services.learning import WIDTH, erase, rows, run_next


@pytest.fixture
def model(client):
    return a_model(client)


def address(model, rest=""):
    return f"/v1/models/{model['id']}/versions{rest}"


def test_shows_what_made_a_version(client, service, model):
    dataset = a_dataset(client, rows(ant=4, bee=4), split=["train"] * 6 + ["eval"] * 2)
    job = update(client, model, [dataset], params={"metric": "euclidean"}, seed=7).json()
    run_next(service)
    version = client.get(address(model, "/1")).json()
    assert version["job"] == job["id"]
    assert version["model"] == model["id"]
    assert version["method"] == {"name": "ncm", "params": {"metric": "euclidean"}}
    assert (version["number"], version["parent"], version["replaces"], version["seed"]) == (1, None, None, 7)
    assert (version["state"], version["tainted"]) == ("ready", False)
    assert [(use["dataset"], use["role"], use["rows"]) for use in version["datasets"]] == [
        (dataset, "evaluate", 2),
        (dataset, "train", 6),
    ]
    assert version["metrics"]["rows"] == 2
    assert version["width"] == WIDTH


def test_takes_digests_from_the_key_object(client, service, model):
    result = teach(client, service, model)
    with service.db.read() as session:
        row = session.get_one(Version, ids.decode("ver", result["version_id"]))
    digests = client.get(address(model, "/1")).json()["digests"]
    key = service.vault.key(row.key_id)
    assert digests["weights"] == key.digests["weights"]
    assert digests["file"] == key.digests[row.file_id.hex]


def test_has_no_digest_in_a_row_or_an_event(client, service, model):
    teach(client, service, model)
    digest = client.get(address(model, "/1")).json()["digests"]["weights"]
    with service.db.read() as session:
        rows_of_all = [session.execute(select(table)).all() for table in Base.metadata.sorted_tables]
    assert digest not in repr(rows_of_all)


def test_stays_the_same_however_often_it_is_read(client, service, model):
    teach(client, service, model)
    first = client.get(address(model, "/1"))
    again = client.get(address(model, "/1"))
    assert again.content == first.content
    etag = first.headers["ETag"]
    assert client.get(address(model, "/1"), headers={"If-None-Match": etag}).status_code == 304


def test_shows_taint_at_once(client, service, model):
    dataset = a_dataset(client)
    update(client, model, [dataset])
    run_next(service)
    assert client.get(address(model, "/1")).json()["tainted"] is False
    with service.db.read() as session:
        row = session.get_one(Dataset, ids.decode("dst", dataset))
    erase(service, row.tenant_id, row, 0)
    assert client.get(address(model, "/1")).json()["tainted"] is True
    assert client.get(address(model)).json()["items"][0]["tainted"] is True


@pytest.mark.parametrize("number", ["7", "0", "x"])
def test_refuses_a_number_that_is_no_version(client, service, model, number):
    teach(client, service, model)
    for rest in ("", "/lineage", "/centroids"):
        assert client.get(address(model, f"/{number}{rest}")).status_code == 404


def test_lists_versions_by_number_in_pages(client, service, model):
    for names in (rows(ant=2, bee=2), rows(cat=2), rows(dog=2)):
        teach(client, service, model, names)
    first = client.get(address(model), params={"page_size": 2}).json()
    rest = client.get(address(model), params={"page_token": first["next_page_token"], "page_size": 2}).json()
    assert [item["number"] for item in first["items"] + rest["items"]] == [1, 2, 3]
    assert [item["classes"] for item in first["items"] + rest["items"]] == [2, 3, 4]
    assert [item["parent"] for item in first["items"] + rest["items"]] == [None, 1, 2]


def test_answers_lineage_both_ways(client, service, model):
    teach(client, service, model, rows(ant=2, bee=2))
    teach(client, service, model, rows(cat=2))
    teach(client, service, model, rows(dog=2))
    teach(client, service, model, rows(elk=2), base=1)
    second = client.get(address(model, "/2/lineage")).json()
    assert [node["number"] for node in second["ancestors"]] == [1]
    assert [node["number"] for node in second["descendants"]] == [3]
    first = client.get(address(model, "/1/lineage")).json()
    assert [node["number"] for node in first["descendants"]] == [2, 3, 4]
    third = client.get(address(model, "/3/lineage")).json()
    assert sorted(use["inherited"] for use in third["datasets"]) == [False, True, True]


def test_shows_exact_means_as_float32(client, service, model):
    x = np.random.default_rng(5).standard_normal((12, WIDTH)).astype(np.float32)
    labels = rows(ant=6, bee=6)
    dataset = send(client, npz(x=x, label=np.array(labels)), "npz").json()["id"]
    update(client, model, [dataset])
    run_next(service)
    grid, _ = quantise(x, "normalised")
    shown = client.get(address(model, "/1/centroids")).json()
    assert (shown["version"], shown["width"]) == (1, WIDTH)
    for item in shown["items"]:
        mine = grid[np.array(labels) == item["name"]].astype(np.float64)
        expected = (mine.sum(axis=0) / len(mine) * 2.0**-13).astype(np.float32)
        np.testing.assert_array_equal(np.array(item["vector"], np.float32), expected)
        assert (item["count"], item["reason"]) == (6, None)


def test_hides_the_centroid_of_a_small_class_but_from_admins(client, service, model, key_with):
    teach(client, service, model, rows(ant=5, bee=4))
    reader = key_with("read", "train", "promote")
    ant, bee = client.get(address(model, "/1/centroids"), headers=reader).json()["items"]
    assert len(ant["vector"]) == WIDTH
    assert (bee["vector"], bee["count"]) == (None, 4)
    assert "min_centroid_rows" in bee["reason"]
    for item in client.get(address(model, "/1/centroids")).json()["items"]:
        assert len(item["vector"]) == WIDTH


def test_gives_centroids_as_arrays(client, service, model, key_with):
    teach(client, service, model, rows(ant=5, bee=4))
    headers = {**key_with("read"), "Accept": "application/x-npz"}
    answer = client.get(address(model, "/1/centroids"), headers=headers)
    assert answer.headers["content-type"] == "application/x-npz"
    arrays = np.load(io.BytesIO(answer.content), allow_pickle=False)
    shown = client.get(address(model, "/1/centroids")).json()["items"]
    assert arrays["name"].tolist() == ["ant", "bee"]
    assert arrays["class_id"].tolist() == [item["class_id"] for item in shown]
    assert arrays["count"].tolist() == [5, 4]
    np.testing.assert_array_equal(arrays["vector"][0], np.array(shown[0]["vector"], np.float32))
    assert np.isnan(arrays["vector"][1]).all()
    assert arrays["reason"][0] == ""
    assert "min_centroid_rows" in arrays["reason"][1]


def test_shows_classes_with_the_versions_that_know_them(client, service, model):
    teach(client, service, model, rows(bee=2, dog=2))
    teach(client, service, model, rows(ant=2))
    found = client.get(f"/v1/models/{model['id']}/classes").json()["items"]
    assert [(item["name"], item["versions"]) for item in found] == [
        ("bee", [1, 2]),
        ("dog", [1, 2]),
        ("ant", [2]),
    ]
    one = client.get(f"/v1/models/{model['id']}/classes/{found[2]['id']}").json()
    assert one == found[2]
    missing = client.get(f"/v1/models/{model['id']}/classes/cls_{'0' * 26}")
    assert missing.status_code == 404


def test_names_its_address(client, service, model):
    teach(client, service, model)
    assert version_path(ids.decode("mdl", model["id"]), 1) == address(model, "/1")
