"""Predictions over HTTP: what is answered, what is refused and where the fault lies."""

from __future__ import annotations

import io
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.testclient import TestClient

import app.api.predict
from app import ids
from app.config import Api, Limits, Settings
from app.main import create_app
from app.methods.networks.spec import InputSpec
from app.schemas.predict import Prediction, PredictRead
from app.service import open_service
from app.services.callers import access
from app.tables import Tenant
from tests.api.conftest import bearer
from tests.api.sending import ODD_HEADERS, odd_npy
from tests.services.test_snapshots import flip, linear, path_of
from tests.services.versions import add_model, add_version

NPY = {"Content-Type": "application/x-npy"}
IMAGES = linear(input=InputSpec(kind="image", shape=(2, 2)))
ROWS = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture
def settings(settings):
    small = {
        "api": Api(predict_queue=1, predict_threads=1),
        "limits": Limits(predict_rows=100, predict_bytes=20_000),
    }
    return settings.model_copy(update=small)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, template):
    """A client and a version for the tests that change nothing."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("shared"), limits=Limits(predict_rows=100, predict_bytes=20_000)
    )
    template.copy_to(settings.data_dir / "palimpsest.db")
    service = open_service(settings)
    access.bootstrap(service)
    token = (settings.data_dir / access.ADMIN_KEY_FILE).read_text().strip()
    with TestClient(create_app(service), headers=bearer(token)) as client:
        yield client, publish(service, linear()), publish(service, IMAGES)
    service.close()


@pytest.fixture
def ask(shared):
    """Ask the shared version."""
    client, version, _ = shared
    return lambda **request: client.post(url(version), **request)


@pytest.fixture
def ask_images(shared):
    """Ask the shared version that takes images of 2 x 2."""
    client, _, images = shared
    return lambda **request: client.post(url(images), **request)


@pytest.fixture
def version(service):
    return publish(service, linear())


def publish(service, snapshot):
    with service.db.begin() as session:
        model = add_model(session, snapshot, session.query(Tenant).one().id)
    return add_version(service, model, snapshot)


def url(version):
    return f"/v1/models/{ids.encode('mdl', version.model_id)}/predict"


def npy(array, **options):
    body = io.BytesIO()
    np.save(body, array, **options)
    return body.getvalue()


def test_answers_json(ask):
    answer = ask(json={"inputs": ROWS.tolist(), "version": 1, "top_k": 2})

    assert answer.status_code == 200, answer.text
    read = PredictRead.model_validate(answer.json())
    assert (read.version, read.alias, len(read.predictions)) == (1, None, 6)
    for row in read.predictions:
        assert isinstance(row, Prediction)
        assert row.top_k is not None
        best, second = row.top_k
        assert row.score == best.score >= second.score
    assert len(read.class_map_digest) == 64


def test_answers_a_npy_body_alike(ask):
    as_json = ask(json={"inputs": ROWS.tolist(), "version": 1, "top_k": 2})
    as_npy = ask(content=npy(ROWS), headers=NPY, params={"version": 1, "top_k": 2})

    assert as_npy.status_code == 200, as_npy.text
    assert as_npy.json() == as_json.json()


def test_answers_large_json_alike_and_finds_the_same_faults(ask, monkeypatch):
    """A body that is read in pieces gives what it gives as a whole."""
    bodies = [
        {"inputs": ROWS.tolist(), "top_k": 2},
        {"inputs": [[1, 2, 3, 4], [1, 2, 3]]},
        {"inputs": [[1, 2, 3]]},
        {"inputs": ROWS.tolist(), "model": 1},
        {"inputs": [[0, 0, 0, 1e39]]},
        {"a": {"inputs": ROWS.tolist()}},
        {'a"inputs': ROWS.tolist()},
    ]
    whole = [ask(json=body) for body in bodies]
    monkeypatch.setattr(app.api.predict, "SMALL", 0)
    in_pieces = [ask(json=body) for body in bodies]

    def essence(answer):
        return (answer.status_code, {**answer.json(), "request_id": ""})

    assert [essence(answer) for answer in in_pieces] == [essence(answer) for answer in whole]
    assert [answer.status_code for answer in whole] == [200] + [422] * 6


@pytest.mark.parametrize(
    "array",
    [ROWS.astype(np.float64), ROWS.astype(">f4"), np.asfortranarray(ROWS)],
    ids=["float64", "big-endian", "column-major"],
)
def test_reads_every_form_of_npy(ask, array):
    expected = ask(content=npy(ROWS), headers=NPY).json()

    assert ask(content=npy(array), headers=NPY).json() == expected


def test_reads_images_of_whole_numbers(ask_images):
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) * 30

    as_npy = ask_images(content=npy(images), headers=NPY)
    as_json = ask_images(json={"inputs": images.tolist()})

    assert as_npy.status_code == 200, as_npy.text
    assert as_json.json() == as_npy.json()


def row(*values):
    return [list(values)]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"inputs": []}, 422, "validation-failed", "/inputs"),
        ({"inputs": [0.0] * 4}, 422, "dimension-mismatch", "/inputs/0"),
        ({"inputs": row(1, 2, 3)}, 422, "dimension-mismatch", "/inputs/0"),
        ({"inputs": [[1, 2, 3, 4], [1, 2, 3]]}, 422, "dimension-mismatch", "/inputs/1"),
        ({"inputs": [[1, 2, 3, 4], [1, 2, 3, [4]]]}, 422, "dimension-mismatch", "/inputs/1"),
        ({"inputs": row(1, 2, 3, "4")}, 422, "validation-failed", "/inputs"),
        ({"inputs": row(1, 2, 3, None)}, 422, "validation-failed", "/inputs"),
        ({"inputs": row(True, True, False, True)}, 422, "validation-failed", "/inputs"),
        ({"inputs": [[0] * 4, [1, 2, 3, float("nan")]]}, 422, "non-finite-values", "/inputs/1"),
        ({"inputs": [[0] * 4, [1, 2, 3, float("-inf")]]}, 422, "non-finite-values", "/inputs/1"),
        ({"inputs": row(1, 2, 3, 1e39)}, 422, "non-finite-values", "/inputs/0"),
        ({"inputs": row(1, 2, 3, 10**30)}, 422, "validation-failed", "/inputs"),
        ({"inputs": [[0] * 4] * 101}, 413, "body-too-large", "/inputs"),
        ({"inputs": "rows"}, 422, "validation-failed", "/inputs"),
        ({}, 422, "validation-failed", "/inputs"),
        ({"inputs": row(0, 0, 0, 0), "model": "x"}, 422, "validation-failed", "/model"),
        ({"inputs": row(0, 0, 0, 0), "top_k": 0}, 422, "validation-failed", "/top_k"),
        ({"inputs": row(0, 0, 0, 0), "alias": "../x"}, 422, "validation-failed", "/alias"),
        ({"inputs": row(0, 0, 0, 0), "version": 2}, 404, "not-found", "/version"),
        ({"inputs": row(0, 0, 0, 0), "alias": "production"}, 404, "not-found", "/alias"),
    ],
)
def test_says_what_is_wrong_and_where(ask, body, status, code, pointer):
    answer = ask(content=json.dumps(body), headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def test_refuses_an_alias_and_a_version_together(ask):
    both = {"alias": "latest", "version": 1}

    as_json = ask(json={"inputs": ROWS.tolist(), **both})
    as_npy = ask(content=npy(ROWS), headers=NPY, params=both)

    assert as_json.status_code == as_npy.status_code == 422


@pytest.mark.parametrize("value", [300, -1, 1.5], ids=["large", "negative", "fraction"])
def test_refuses_what_is_no_grey_level(ask_images, value):

    answer = ask_images(json={"inputs": [[[0, 0], [0, value]]]})

    assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
    assert answer.json()["errors"][0]["pointer"] == "/inputs/0"


class Trap:
    """What a pickle would run."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (pickle.dumps(Trap()), 415, "unsafe-format"),
        (npy(np.array([[Trap()]]), allow_pickle=True), 415, "unsafe-format"),
        (b"", 415, "unsafe-format"),
        (b"PK\3\4 not an array", 415, "unsafe-format"),
        (npy(ROWS)[:-1], 400, "invalid-request"),
        (npy(ROWS) + b"more", 400, "invalid-request"),
        (npy(ROWS)[:40], 400, "invalid-request"),
        (npy(np.array([["a"] * 4])), 422, "validation-failed"),
        (npy(np.zeros((2, 4), complex)), 422, "validation-failed"),
        (npy(np.float32(1)), 422, "validation-failed"),
        (npy(np.zeros((2, 5))), 422, "dimension-mismatch"),
        (npy(np.full((2, 4), np.nan)), 422, "non-finite-values"),
    ],
)
def test_refuses_what_is_no_array_of_numbers(ask, body, status, code):
    answer = ask(content=body, headers=NPY)

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_stops_reading_a_body_over_the_limit(ask):
    def endless():
        for _ in range(1000):
            yield bytes(1000)

    answer = ask(content=endless(), headers=NPY)

    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_refuses_another_media_type(ask):
    answer = ask(content=b"1,2,3,4", headers={"Content-Type": "text/csv"})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media")


@pytest.mark.parametrize("query", [{"version": 1}, {"k": 1}], ids=["belongs in the body", "unknown"])
def test_refuses_a_query_field_that_it_would_ignore(ask, query):
    answer = ask(json={"inputs": ROWS.tolist()}, params=query)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


def test_keeps_a_model_from_other_tenants(client, version, stranger):
    answer = client.post(url(version), json={"inputs": ROWS.tolist()}, headers=stranger)

    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_needs_scope_read(client, version, key_with):
    refused = client.post(url(version), json={"inputs": ROWS.tolist()}, headers=key_with("ingest"))
    taken = client.post(url(version), json={"inputs": ROWS.tolist()}, headers=key_with("read"))

    assert (refused.status_code, taken.status_code) == (403, 200)


def test_answers_for_a_damaged_version_with_another_and_says_so(client, service):
    snapshot = linear()
    with service.db.begin() as session:
        model = add_model(session, snapshot, session.query(Tenant).one().id)
    add_version(service, model, snapshot)
    damaged = add_version(service, model, snapshot)
    flip(path_of(service, damaged))

    by_alias = client.post(url(damaged), json={"inputs": ROWS.tolist(), "alias": "latest"})
    by_number = client.post(url(damaged), json={"inputs": ROWS.tolist(), "version": 2})

    assert (by_alias.json()["version"], by_alias.json()["instead_of"]) == (1, 2)
    assert (by_number.status_code, by_number.json()["code"]) == (500, "artifact-corrupt")


def test_stays_alive_while_the_prediction_thread_is_stuck(client, version):
    """One prediction computes, one waits, the next is told to come again; everything else answers."""
    gate, started = threading.Event(), threading.Event()

    def stuck():
        started.set()
        gate.wait(30)
        return None
        yield

    body = {"inputs": ROWS.tolist()}
    predictor = client.app.state.predictor
    expected = client.post(url(version), json=body).json()
    predictor.turns.submit(stuck())
    assert started.wait(10)
    with ThreadPoolExecutor(2) as others:
        waiting = [others.submit(client.post, url(version), json=body) for _ in range(2)]
        until = time.monotonic() + 10
        while predictor.waiting < 2 and time.monotonic() < until:
            time.sleep(0.005)
        try:
            refused = client.post(url(version), json=body)
            alive = client.get("/livez")
        finally:
            gate.set()
        answers = [future.result(30).json() for future in waiting]

    assert (refused.status_code, refused.json()["code"]) == (503, "not-ready")
    assert refused.headers["retry-after"] == "1"
    assert alive.status_code == 200
    assert answers == [expected, expected]


@pytest.mark.parametrize("header", ODD_HEADERS)
def test_refuses_a_npy_whose_header_is_none(client, version, header):
    answer = client.post(url(version), content=odd_npy(header), headers=NPY)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] in ("invalid-request", "validation-failed")
