"""The same call twice: one effect, one answer, whoever comes first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app.db import clock
from app.errors import IdempotencyInProgress
from app.services.callers import idempotency
from app.services.callers.idempotency import Once
from app.services.scheduler import expire_answers
from app.tables import ApiKey, IdempotencyRecord
from tests.api.conftest import both_stacks

BODY = {"name": "pipeline", "scopes": ["read", "ingest"]}


def post(client, key, body=BODY, **more):
    return client.post("/v1/api-keys", json=body, headers={"Idempotency-Key": key, **more})


def keys_named(service, name):
    with service.db.read() as session:
        return session.scalar(select(func.count()).where(ApiKey.name == name))


def test_a_repeated_call_gets_the_same_answer_and_says_so(client, service):
    first, second = post(client, "k1"), post(client, "k1")

    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.status_code == first.status_code == 201
    assert second.headers["location"] == first.headers["location"]
    assert second.json() == {**first.json(), "token": None}  # a secret is stored nowhere
    assert keys_named(service, "pipeline") == 1


@both_stacks
def test_fifty_parallel_duplicates_have_one_effect_and_one_answer(client, service):
    start = threading.Barrier(50)

    def call(_):
        start.wait()
        return post(client, "parallel")

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(call, range(50)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert keys_named(service, "pipeline") == 1


def test_the_order_of_fields_and_quotes_around_the_key_do_not_matter(client):
    first = post(client, "k1")
    turned = post(client, '"k1"', dict(reversed(BODY.items())))

    assert turned.json()["id"] == first.json()["id"]


def test_a_key_with_another_body_is_refused(client):
    post(client, "k1")
    answer = post(client, "k1", {**BODY, "name": "another"})

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-mismatch")


def test_a_call_that_was_refused_is_not_stored(client):
    assert post(client, "k1", {"name": "", "scopes": ["read"]}).status_code == 422
    assert post(client, "k1").status_code == 201


def test_another_tenant_may_use_the_same_key(client, stranger):
    mine, theirs = post(client, "k1"), post(client, "k1", **stranger)

    assert mine.json()["id"] != theirs.json()["id"]


@pytest.mark.parametrize("key", ["", " ", '""', "x" * 256])
def test_a_key_that_is_none_is_refused(client, key):
    answer = post(client, key)

    assert answer.status_code == 400
    assert [e["pointer"] for e in answer.json()["errors"]] == ["Idempotency-Key"]


@pytest.fixture
def once(tenant):
    return Once(tenant.id, "POST /v1/datasets", "upload-1")


@both_stacks
def test_a_duplicate_of_an_upload_that_streams_is_told_so(service, once):
    with idempotency.reserved(service, once) as held:
        assert held.earlier is None
        with pytest.raises(IdempotencyInProgress), idempotency.reserved(service, once):
            raise AssertionError("taken twice")


def test_an_upload_that_fails_gives_its_key_back(service, once):
    def broken():
        with idempotency.reserved(service, once):
            raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        broken()

    with idempotency.reserved(service, once) as held:
        assert held.earlier is None


def test_an_upload_that_ended_is_found_again(service, once, tenant):
    with idempotency.reserved(service, once) as held, service.db.begin() as session:
        held.once.finish(session, status=201, resource_id=tenant.id)

    with idempotency.reserved(service, once) as held:
        earlier = held.earlier
        assert earlier is not None
        assert (earlier.status, earlier.resource_id) == (201, tenant.id)


def test_the_key_of_a_process_that_died_is_free_after_a_minute(service, once):
    idempotency._take(service, once)
    with pytest.raises(IdempotencyInProgress):
        idempotency._take(service, once)
    fall_silent(service)

    assert idempotency._take(service, once).earlier is None


@both_stacks
def test_a_process_that_was_only_paused_does_not_answer_for_who_took_its_key(service, once, tenant):
    with idempotency.reserved(service, once) as paused:
        fall_silent(service)
        with idempotency.reserved(service, once) as held:
            with pytest.raises(IdempotencyInProgress), service.db.begin() as session:
                paused.once.finish(session, status=201, resource_id=tenant.id)
            with service.db.begin() as session:
                held.once.finish(session, status=201, resource_id=held.once.record_id)

    with idempotency.reserved(service, once) as later:
        assert later.earlier is not None
        assert later.earlier.resource_id == held.once.record_id


def fall_silent(service):
    with service.db.begin() as session:
        long_ago = clock(session) - timedelta(seconds=idempotency.DEAD_SECONDS + 1)
        session.execute(update(IdempotencyRecord).values(renewed_at=long_ago))


def test_records_are_removed_when_their_time_is_over(client, service):
    post(client, "old")
    with service.db.begin() as session:
        kept = timedelta(seconds=service.settings.idempotency.keep_seconds)
        session.execute(update(IdempotencyRecord).values(created_at=clock(session) - 2 * kept))
    post(client, "new")

    expire_answers(service)

    assert "idempotency-replayed" in post(client, "new").headers
    assert "idempotency-replayed" not in post(client, "old").headers
