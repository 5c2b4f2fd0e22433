"""Versions that leave and heads that come in, over HTTP."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sqlalchemy import func, select

from app import ids
from app.config import Limits
from app.methods.networks.spec import InputSpec
from app.methods.parts.digest import array_digest, label_keys
from app.methods.parts.grid import ExponentGrid
from app.schemas.artifacts import Artifact
from app.tables import AuditEvent, Base, Export, IdempotencyRecord, RestrictedRow, Tenant, Version
from examples import import_sklearn, import_torch
from examples.heads import pack
from tests.api.sending import npz, send
from tests.api.teaching import a_dataset, a_model, update
from tests.services import learning
from tests.services.learning import run_next
from tests.services.test_predict import taint
from tests.services.test_snapshots import CLASSES, flip, head_of, linear, path_of, trained
from tests.services.versions import add_model, add_version

DOC = Path(__file__).parents[2] / "docs" / "artifact.md"
ZIP = {"Content-Type": "application/zip"}
RANDOM = np.random.default_rng(11)


def publish(service, snapshot, **changes):
    with service.db.begin() as session:
        model = add_model(session, snapshot, session.query(Tenant).one().id)
    return add_version(service, model, snapshot, **changes)


def url(version, action="artifact"):
    model = ids.encode("mdl", version.model_id)
    return (
        f"/v1/models/{model}/{action}" if action == "predict" else f"/v1/models/{model}/versions/1/{action}"
    )


def unpack(raw):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        return json.loads(archive.read("version.json")), load(archive.read("version.safetensors"))


def count(service, table):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_streams_a_version_as_safetensors_and_json(client, service):
    snapshot = linear()
    version = publish(service, snapshot)

    answer = client.get(url(version))

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    described, tensors = unpack(answer.content)
    read = Artifact.model_validate(described)
    assert [entry.name for entry in read.classes] == list(CLASSES)
    assert (read.version, read.head.normalise, read.grid) == (1, True, snapshot.grid)
    assert np.array_equal(tensors["head.weight"], head_of(snapshot).weight.numpy())
    assert np.array_equal(tensors["head.bias"], head_of(snapshot).bias.numpy())
    assert described["digests"]["weights"] == array_digest(
        {
            **tensors,
            "classes": label_keys(CLASSES),
            "head.normalise": np.ones(1, np.uint8),
        }
    )


def test_takes_the_network_along(client, service):
    snapshot = trained()
    version = publish(service, snapshot, trained_network=True)

    described, tensors = unpack(client.get(url(version)).content)

    assert described["network"] == {"name": "mlp", "params": {"hidden": [5, 3]}}
    assert {name for name in tensors if name.startswith("network.")} == {
        f"network.{name}" for name in snapshot.weights
    }
    for name, tensor in snapshot.weights.items():
        assert np.array_equal(tensors[f"network.{name}"], tensor.numpy())


def test_streams_what_is_larger_than_a_part(client, service):
    """A head of 3 MB leaves in several parts."""
    wide = linear(
        classes=tuple(f"{i:02}" for i in range(16)),
        width=48_000,
        input=InputSpec(kind="vector", shape=(48_000,)),
    )

    _, tensors = unpack(client.get(url(publish(service, wide))).content)

    assert np.array_equal(tensors["head.weight"], head_of(wide).weight.numpy())


def test_writes_down_who_took_it_and_for_whom(client, service):
    version = publish(service, linear())

    client.get(url(version), params={"recipient": "shop search"})

    with service.db.read() as session:
        export = session.scalars(select(Export)).one()
        audit = session.scalars(select(AuditEvent).filter_by(action="version.exported")).one()
    assert (export.version_id, export.recipient) == (version.id, "shop search")
    assert export.actor == audit.actor
    assert audit.resources["export"] == export.id.hex


def restrict(service, model, version):
    taint(service, model, version)  # makes a dataset and an edge to it
    with service.db.begin() as session:
        [edge] = session.execute(select(Base.metadata.tables["version_datasets"])).all()
        session.execute(Base.metadata.tables["erased_rows"].delete())
        session.add(
            RestrictedRow(
                dataset_id=edge.dataset_id, position=0, request_id=ids.new(), tenant_id=model.tenant_id
            )
        )


def purge(service, _, version):
    with service.db.begin() as session:
        session.get_one(Version, version.id).state = "purged"


def damage(service, _, version):
    flip(path_of(service, version))


@pytest.mark.parametrize(
    ("happen", "status", "code"),
    [
        (taint, 409, "version-tainted"),
        (restrict, 409, "subject-restricted"),
        (purge, 410, "purged"),
        (damage, 500, "artifact-corrupt"),
    ],
    ids=["tainted", "restricted", "purged", "damaged"],
)
def test_lets_nothing_leave_that_must_not(client, service, happen, status, code):
    snapshot = linear()
    with service.db.begin() as session:
        model = add_model(session, snapshot, session.query(Tenant).one().id)
    version = add_version(service, model, snapshot)
    happen(service, model, version)

    answer = client.get(url(version))

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert count(service, Export) == 0


def test_keeps_a_version_from_other_tenants(client, service, stranger):
    with service.db.begin() as session:
        model = add_model(session, linear(), session.query(Tenant).order_by(Tenant.id).first().id)
    version = add_version(service, model, linear())

    assert client.get(url(version), headers=stranger).status_code == 404
    assert client.get(url(version).replace("/1/", "/2/")).status_code == 404
    assert count(service, Export) == 0


# ---- the twenty lines of the document


@pytest.fixture(scope="module")
def twenty_lines():
    """The function in the document."""
    [code] = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(compile(code, str(DOC), "exec"), names)
    return names["scores"]


@pytest.mark.parametrize("normalise", [True, False], ids=["normalised rows", "rows as they are"])
@pytest.mark.parametrize("grid", ["normalised", ExponentGrid(exponent=-7)], ids=["normalised", "steps"])
@pytest.mark.parametrize("kind", ["vector", "image"])
def test_the_lines_of_the_document_give_the_scores_of_the_service(
    client, service, twenty_lines, tmp_path, kind, grid, normalise
):
    snapshot = linear(
        width=300,
        normalise=normalise,
        grid=grid,
        input=InputSpec(kind=kind, shape=(300,) if kind == "vector" else (10, 10, 3)),
    )
    version = publish(service, snapshot)
    path = tmp_path / "artifact.zip"
    path.write_bytes(client.get(url(version)).content)
    rows = RANDOM.normal(size=(40, 300)) * 3 if kind == "vector" else RANDOM.integers(0, 256, (40, 10, 10, 3))
    rows[0] = 0

    given, names = twenty_lines(path, rows)

    answer = client.post(url(version, "predict"), json={"inputs": rows.tolist(), "top_k": 4}).json()
    assert names == list(CLASSES)
    for row, prediction in zip(given, answer["predictions"], strict=True):
        assert {top["label"]: top["score"] for top in prediction["top_k"]} == dict(
            zip(names, row.tolist(), strict=True)
        )


@pytest.mark.parametrize("grid", ["normalised", {"exponent": -7}], ids=["normalised", "steps"])
@pytest.mark.parametrize("width", [40, 900])
def test_the_lines_hold_for_an_expanded_head(client, service, twenty_lines, tmp_path, width, grid):
    model = a_model(
        client,
        input={"kind": "vector", "shape": [width], "grid": grid},
        expansion={"width": 70, "seed": 5},
    )
    labels = learning.rows(ant=9, bee=9, cat=9)
    x = RANDOM.normal(size=(len(labels), width)).astype(np.float32)
    data = a_dataset(client, labels, x=x)
    assert update(client, model, [data], method="analytic").status_code == 202
    done = run_next(service)
    assert done.state == "succeeded", done.error
    path = tmp_path / "artifact.zip"
    path.write_bytes(client.get(f"/v1/models/{model['id']}/versions/1/artifact").content)

    given, names = twenty_lines(path, x)

    asked = {"inputs": x.tolist(), "top_k": 3}
    answer = client.post(f"/v1/models/{model['id']}/predict", json=asked).json()
    for row, prediction in zip(given, answer["predictions"], strict=True):
        assert {top["label"]: top["score"] for top in prediction["top_k"]} == dict(
            zip(names, row.tolist(), strict=True)
        )


@pytest.mark.parametrize("expansion", [None, {"width": 50, "seed": 2}], ids=["plain", "expanded"])
def test_the_lines_hold_for_a_regression(client, service, twenty_lines, tmp_path, expansion):
    spec = {"kind": "table", "shape": [6], "grid": {"exponent": -9}, "target": {"exponent": -6}}
    model = a_model(client, task="regression", input=spec, expansion=expansion)
    x = RANDOM.normal(size=(30, 6)).astype(np.float32)
    sent = send(client, npz(x=x, target=x @ np.arange(6.0) + 2), "npz")
    assert sent.status_code == 201, sent.text
    answer = update(client, model, [sent.json()["id"]], method="ridge_regression")
    assert answer.status_code == 202, answer.text
    done = run_next(service)
    assert done.state == "succeeded", done.error
    path = tmp_path / "artifact.zip"
    path.write_bytes(client.get(f"/v1/models/{model['id']}/versions/1/artifact").content)

    given, names = twenty_lines(path, x)

    answer = client.post(f"/v1/models/{model['id']}/predict", json={"inputs": x.tolist()}).json()
    assert names == []
    assert answer["predictions"] == [{"value": value} for value in given[:, 0].tolist()]


# ---- heads that come in

WEIGHT = RANDOM.normal(size=(3, 4)).astype(np.float32)
BIAS = RANDOM.normal(size=3).astype(np.float32)
NAMES = {"classes": ["zebra", "ant", "ärger"]}


def create_model(client, name="embeddings", **changes):
    body = {
        "name": name,
        "task": "classification",
        "input": {"kind": "vector", "shape": [4], "grid": {"exponent": -10}},
        **changes,
    }
    answer = client.post("/v1/models", json=body)
    assert answer.status_code == 201, answer.text
    return f"/v1/models/{answer.json()['id']}"


def bring(client, model, body, **headers):
    return client.post(f"{model}/versions/import", content=body, headers={**ZIP, **headers})


def test_makes_a_head_the_first_version(client):
    model = create_model(client)

    answer = bring(client, model, pack(WEIGHT, BIAS, NAMES))

    assert answer.status_code == 201, answer.text
    version = answer.json()
    assert answer.headers["location"] == f"{model}/versions/1"
    assert (version["number"], version["method"]["name"], version["parent"]) == (1, "import", None)
    assert [entry["name"] for entry in version["classes"]] == ["ant", "zebra", "ärger"]
    assert client.get(f"{model}/versions/1").json() == {**version, "digests": ANY}


def test_predicts_as_the_head_did(client):
    model = create_model(client)
    bring(client, model, pack(WEIGHT.astype(np.float64), BIAS, NAMES))
    rows = RANDOM.integers(-1000, 1000, (50, 4)) / 1024.0  # on the grid: nothing is rounded

    answer = client.post(f"{model}/predict", json={"inputs": rows.tolist(), "top_k": 3}).json()

    expected = rows @ WEIGHT.T.astype(np.float64) + BIAS
    for row, prediction in zip(expected, answer["predictions"], strict=True):
        given = {top["label"]: top["score"] for top in prediction["top_k"]}
        assert np.allclose([given[name] for name in NAMES["classes"]], row, rtol=0, atol=1e-6)


def test_takes_out_what_was_brought_in(client):
    model = create_model(client)
    bring(client, model, pack(WEIGHT, BIAS, NAMES))

    described, tensors = unpack(client.get(f"{model}/versions/1/artifact").content)

    order = [1, 0, 2]
    assert np.array_equal(tensors["head.weight"], WEIGHT[order])
    assert np.array_equal(tensors["head.bias"], BIAS[order])
    assert described["method"] == {"name": "import", "params": {"normalise": False}}


def test_brings_a_head_in_once_for_one_key(client, service):
    model = create_model(client)
    key = {"Idempotency-Key": "once"}
    body = pack(WEIGHT, BIAS, NAMES)

    first = bring(client, model, body, **key)
    again = bring(client, model, body, **key)
    other = bring(client, model, pack(WEIGHT + 1, BIAS, NAMES), **key)

    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")
    assert count(service, Version) == 1


def test_keeps_no_digest_in_a_stored_answer(client, service):
    model = create_model(client)
    bring(client, model, pack(WEIGHT, BIAS, NAMES), **{"Idempotency-Key": "digests"})

    digests = client.get(f"{model}/versions/1").json()["digests"]
    with service.db.read() as session:
        bodies = [json.dumps(body) for body in session.scalars(select(IdempotencyRecord.body))]

    assert digests
    assert not [digest for digest in digests.values() for body in bodies if digest in body]


def test_waits_for_an_update_that_was_there_first(client, service):
    model = create_model(client)
    dataset = a_dataset(client, width=4)
    asked = update(client, {"id": model.rpartition("/")[2]}, [dataset])
    assert asked.status_code == 202, asked.text

    answer = bring(client, model, pack(WEIGHT, BIAS, NAMES))

    assert (answer.status_code, answer.json()["code"]) == (409, "in-use")
    assert count(service, Version) == 0


def test_refuses_a_second_head(client):
    model = create_model(client)
    bring(client, model, pack(WEIGHT, BIAS, NAMES))

    answer = bring(client, model, pack(WEIGHT, BIAS, NAMES))

    assert (answer.status_code, answer.json()["code"]) == (409, "has-versions")


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return packed.getvalue()


def damaged(body):
    """The same zip, deflated and with a hole in the deflated stream of its last member."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        raw = zipped(**{name.replace(".", "_"): archive.read(name) for name in archive.namelist()})
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        last = archive.infolist()[-1]
    start = last.header_offset + 30 + len(last.filename)
    return raw[:start] + b"\xff" * 8 + raw[start + 8 :]


def named(*classes, **more):
    return pack(WEIGHT, BIAS, {"classes": list(classes), **more})


JSON = json.dumps(NAMES)
TENSORS = {"weight": WEIGHT, "bias": BIAS}
NAN = WEIGHT.copy()
NAN[1, 2] = np.nan

REFUSED = {
    "no zip": (b"PK", 400, "invalid-request"),
    "a member missing": (zipped(head_json=JSON), 400, "invalid-request"),
    "a member more": (
        zipped(head_json=JSON, head_safetensors=save(TENSORS), **{"../x": ""}),
        400,
        "invalid-request",
    ),
    "a truncated zip": (pack(WEIGHT, BIAS, NAMES)[:-30], 400, "invalid-request"),
    "a zip bomb": (zipped(head_json=JSON, head_safetensors=bytes(2 << 20)), 413, "body-too-large"),
    "too large a body": (bytes(2 << 20), 413, "body-too-large"),
    "no safetensors": (zipped(head_json=JSON, head_safetensors=b"\x80\x04pickle"), 415, "unsafe-format"),
    "another tensor": (
        zipped(head_json=JSON, head_safetensors=save({"w": WEIGHT})),
        422,
        "validation-failed",
    ),
    "whole numbers": (
        zipped(head_json=JSON, head_safetensors=save({"weight": WEIGHT.astype(np.int64), "bias": BIAS})),
        422,
        "validation-failed",
    ),
    "no JSON": (zipped(head_json="{", head_safetensors=save(TENSORS)), 422, "validation-failed"),
    "a damaged member": (damaged(pack(WEIGHT, BIAS, NAMES)), 400, "invalid-request"),
    "an unknown field": (named("a", "b", "c", scale=2), 422, "validation-failed"),
    "an empty name": (named("a", "b", " "), 422, "validation-failed"),
    "no classes": (pack(WEIGHT[:0], BIAS[:0], {"classes": []}), 422, "validation-failed"),
    "one class": (pack(WEIGHT[:1].copy(), BIAS[:1].copy(), {"classes": ["a"]}), 422, "too-few-samples"),
    "the same name": (named("a", "b", "b"), 409, "class-name-conflict"),
    "names that look alike": (named("Cat", "dog", "cat"), 409, "class-name-conflict"),
    "a class more": (named("a", "b", "c", "d"), 422, "dimension-mismatch"),
    "another width": (pack(WEIGHT[:, :3].copy(), BIAS, NAMES), 422, "dimension-mismatch"),
    "a flat weight": (pack(WEIGHT[0], BIAS, NAMES), 422, "dimension-mismatch"),
    "a value that is none": (pack(NAN, BIAS, NAMES), 422, "non-finite-values"),
    "scores too large": (pack(np.full((3, 4), 3e37), BIAS, NAMES), 422, "validation-failed"),
    "a value too large": (pack(WEIGHT.astype(float) * 1e300, BIAS, NAMES), 422, "non-finite-values"),
}


@pytest.fixture
def small_imports(service, monkeypatch):
    limits = service.settings.limits.model_copy(update={"import_bytes": 1 << 20})
    object.__setattr__(service, "settings", service.settings.model_copy(update={"limits": limits}))
    return limits


def test_refuses_what_is_no_head_and_leaves_nothing(client, service, small_imports):
    assert isinstance(small_imports, Limits)
    model = create_model(client)
    before = (stored(service), count(service, AuditEvent))

    answers = {name: bring(client, model, body) for name, (body, _, _) in REFUSED.items()}

    given = {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()}
    assert given == {name: (status, code) for name, (_, status, code) in REFUSED.items()}
    assert (stored(service), count(service, AuditEvent)) == before
    assert count(service, Version) == 0


def stored(service):
    roots = (service.vault.files.root, service.vault.keys.root)
    return sorted(path for root in roots for path in root.rglob("*") if path.is_file())


def test_leaves_no_file_of_a_head_that_came_too_late(client, service):
    model = create_model(client)
    bring(client, model, pack(WEIGHT, BIAS, NAMES))
    before = stored(service)

    bring(client, model, pack(WEIGHT, BIAS, NAMES))

    assert stored(service) == before


def test_needs_a_network_whose_weights_are_known(client):
    model = create_model(client, network={"name": "mlp", "params": {"hidden": [4]}})

    answer = bring(client, model, pack(WEIGHT, BIAS, NAMES))

    assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
    assert answer.json()["errors"][0]["pointer"] == "/network"


def test_lets_the_weights_of_a_small_class_leave_to_admins_only(client, service, key_with):
    """The nearest mean of one row is that row."""
    model = a_model(client)
    update(client, model, [a_dataset(client, ["ant"] * 6 + ["bee"])])
    assert run_next(service).state == "succeeded"
    address = f"/v1/models/{model['id']}/versions/1/artifact"
    reader = key_with("read", "train", "promote", "ingest")

    refused = client.get(address, headers=reader)
    assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope")
    assert "min_centroid_rows" in refused.json()["detail"]
    assert count(service, Export) == 0
    assert client.get(address).status_code == 200

    update(client, model, [a_dataset(client, ["bee"] * 4)], on_conflict="extend")
    assert run_next(service).state == "succeeded"
    assert client.get(address.replace("/1/", "/2/"), headers=reader).status_code == 200


@pytest.mark.parametrize("method", ["ncm", "fetril", "teen", "lda"])
def test_refuses_an_update_of_an_imported_head_at_the_door(client, method):
    model = create_model(client, input={"kind": "vector", "shape": [4]})
    assert bring(client, model, pack(WEIGHT, BIAS, NAMES)).status_code == 201
    answer = update(
        client, {"id": model.rpartition("/")[2]}, [a_dataset(client, ["cat"] * 4, width=4)], method
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "missing-data"), answer.text


@pytest.mark.parametrize("method", ["ncm", "teen", "lda"])
def test_refuses_another_head_of_an_imported_one_at_the_door(client, method):
    model = create_model(client, input={"kind": "vector", "shape": [4]})
    assert bring(client, model, pack(WEIGHT, BIAS, NAMES)).status_code == 201
    answer = update(client, {"id": model.rpartition("/")[2]}, [], method)
    assert (answer.status_code, answer.json()["code"]) == (409, "missing-data"), answer.text
    assert client.get("/v1/jobs").json()["items"] == []


def test_needs_scope_train_and_a_zip(client, key_with, stranger):
    model = create_model(client)
    body = pack(WEIGHT, BIAS, NAMES)

    assert bring(client, model, body, **key_with("read")).status_code == 403
    assert bring(client, model, body, **stranger).status_code == 404
    as_json = client.post(f"{model}/versions/import", json=NAMES)
    assert (as_json.status_code, as_json.json()["code"]) == (415, "unsupported-media")


def test_the_scikit_learn_example_agrees_with_scikit_learn(client):
    assert import_sklearn.run(client) == 1.0


def test_the_torch_example_agrees_with_its_network(client):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert import_torch.run(client) >= 0.99
    finally:
        torch.set_num_threads(threads)
