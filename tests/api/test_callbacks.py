"""Callbacks over HTTP: what may be given, what is told, and that the secret is never said again."""

from __future__ import annotations

import base64
import json

import pytest

from app.client import BadSignature, verify_webhook
from app.config import Callbacks
from app.service import open_service
from app.services.callers import access
from app.services.erasure.orphans import NAME_KEYS
from app.tables import ForgetRequest
from tests.api.conftest import both_stacks
from tests.receiving import receiving, send_due

RAW = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(RAW).decode()
PATH = "/v1/forget-requests"


@pytest.fixture
def service(settings):
    """A service that may call this machine."""
    local = settings.model_copy(update={"callbacks": Callbacks(allowed_networks="127.0.0.0/8")})
    opened = open_service(local)
    access.bootstrap(opened)
    yield opened
    opened.close()


@pytest.fixture
def receiver():
    with receiving() as told:
        yield told


def ask(client, url, *, secret=SECRET, key="k", headers=None, targets=("ada",)):
    body = {"scope": "subject", "targets": list(targets), "callback": {"url": url, "secret": secret}}
    return client.post(PATH, json=body, headers={"Idempotency-Key": key, **(headers or {})})


def told(receiver):
    return [verify_webhook(headers, body, SECRET) for headers, body in receiver.seen]


@both_stacks
def test_tells_each_step_under_a_signature_and_says_its_secret_to_nobody(client, service, key_with, receiver):
    clerk = key_with("forget:create")
    made = ask(client, receiver.url, headers=clerk)
    assert made.status_code == 202, made.text
    assert made.json()["callback"] == {"url": receiver.url}
    assert ask(client, receiver.url, headers=clerk).json() == made.json()
    path = made.headers["Location"]
    assert client.post(f"{path}/approve").status_code == 202
    assert send_due(service) == 2

    assert [event["type"] for event in told(receiver)] == ["forget.received", "forget.approved"]
    assert {event["data"]["href"] for event in told(receiver)} == {path}
    sent = client.get(f"{path}/deliveries")
    assert [(one["event"], one["state"]) for one in sent.json()["items"]] == [
        ("forget.received", "delivered"),
        ("forget.approved", "delivered"),
    ]
    again = client.post(f"/v1/deliveries/{sent.json()['items'][0]['id']}/replay")
    assert (again.status_code, again.json()["replay_of"]) == (202, sent.json()["items"][0]["id"])
    assert send_due(service) == 1
    assert told(receiver)[2]["type"] == "forget.received"

    for answer in (made, client.get(path), sent, client.get(PATH), client.get("/v1/audit-events")):
        assert SECRET.removeprefix("whsec_") not in answer.text
    outside_keys = [
        file.read_bytes()
        for file in service.settings.data_dir.rglob("*")
        if file.is_file() and service.settings.keys_dir not in file.parents
    ]
    assert not any(SECRET[6:].encode() in content or RAW in content for content in outside_keys)


def test_whoever_joins_an_open_request_is_told_as_well(client, service, key_with, receiver):
    clerk = key_with("forget:create")
    first = ask(client, receiver.url, key="a", headers=clerk)
    second = ask(client, receiver.url, key="b", headers=clerk)
    assert second.json()["duplicate_of"] == first.json()["id"]
    assert client.post(f"{first.headers['Location']}/approve").status_code == 202
    send_due(service)

    approved = {event["data"]["id"] for event in told(receiver) if event["type"] == "forget.approved"}
    assert approved == {first.json()["id"], second.json()["id"]}


@pytest.mark.parametrize(
    ("url", "secret", "pointer"),
    [
        ("https://10.0.0.1/hook", SECRET, "/callback/url"),
        ("http://93.184.215.14/hook", SECRET, "/callback/url"),
        ("https://93.184.215.14/hook", "whsec_tooshort", "/callback/secret"),
        ("https://93.184.215.14/hook", SECRET[6:], "/callback/secret"),
        ("https://93.184.215.14/hook", SECRET + "=", "/callback/secret"),
    ],
)
def test_what_cannot_be_a_callback_stops_the_request(client, service, url, secret, pointer):
    refused = ask(client, url, secret=secret)

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert secret not in refused.text
    assert client.get(PATH).json()["items"] == []


def test_what_happens_at_one_time_is_told_in_order(client, service, receiver):
    for number in range(3):
        ask(client, receiver.url, key=str(number), targets=[f"person {number}"])
    send_due(service)

    by_request: dict[str, list[str]] = {}
    for event in told(receiver):
        by_request.setdefault(event["data"]["id"], []).append(event["type"])
    assert list(by_request.values()) == [["forget.received", "forget.approved"]] * 3


def test_another_secret_under_the_same_key_is_another_request(client, receiver):
    assert ask(client, receiver.url).status_code == 202
    other = "whsec_" + base64.b64encode(bytes(32)).decode()

    assert ask(client, receiver.url, secret=other).json()["code"] == "idempotency-mismatch"


def test_a_stranger_neither_reads_nor_replays_deliveries(client, receiver, stranger):
    made = ask(client, receiver.url)
    path = f"{made.headers['Location']}/deliveries"
    (first, *_) = client.get(path).json()["items"]

    assert client.get(path, headers=stranger).status_code == 404
    assert client.post(f"/v1/deliveries/{first['id']}/replay", headers=stranger).status_code == 404


def test_the_key_of_a_callback_is_no_orphan():
    assert ForgetRequest.callback_key_id in NAME_KEYS


def test_a_changed_body_is_not_believed(client, service, receiver):
    ask(client, receiver.url)
    send_due(service)
    headers, body = receiver.seen[0]

    with pytest.raises(BadSignature):
        verify_webhook(headers, body.replace(b"received", b"approved"), SECRET)
    assert json.loads(body)["type"] == "forget.received"
