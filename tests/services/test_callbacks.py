"""Callbacks: who may be called, what is signed, and what is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from datetime import timedelta
from ipaddress import ip_address

import pytest
from sqlalchemy import select

from app import ids
from app.config import Callbacks
from app.db import clock
from app.errors import NotFound, ValidationFailed
from app.service import Caller, Service
from app.services.callbacks import addresses, courier, deliveries, letters, messages, signing
from app.tables import Delivery, ForgetRequest
from app.vault import KeyObject
from tests.conftest import a_tenant
from tests.receiving import dripping, receiving, send_due

SECRET = bytes(range(32))
LOCAL = addresses.networks("127.0.0.0/8")


@pytest.fixture
def receiver():
    with receiving() as told:
        yield told


@pytest.fixture
def open_to_local(service):
    """The service of an operator who allows callbacks to this machine."""
    settings = service.settings.model_copy(update={"callbacks": Callbacks(allowed_networks="127.0.0.0/8")})
    return Service(**{**vars(service), "settings": settings})


def a_request(service: Service, tenant_id, url: str | None) -> ForgetRequest:
    key_id = ids.new()
    service.vault.write_key(key_id, KeyObject(key=SECRET))
    with service.db.begin() as session:
        now = clock(session)
        row = ForgetRequest(
            id=ids.new(),
            created_at=now,
            tenant_id=tenant_id,
            scope="subject",
            persons=1,
            shared_rows="erase",
            models=None,
            method={"name": "auto", "params": {}},
            accept="exact",
            external_id="ticket 7",
            submitted_at=now,
            due_at=now + timedelta(days=30),
            callback_url=url,
            callback_key_id=key_id,
            creator="key:00",
        )
        session.add(row)
        session.flush()
        messages.emit(session, row, "forget.completed")
    return row


def until(happened) -> None:
    """Wait until it has happened; it has to, within some seconds."""
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def stored(service: Service) -> list[Delivery]:
    with service.db.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.created_at)))


def test_a_message_arrives_with_a_signature_that_anyone_with_the_secret_can_check(
    open_to_local, caller: Caller, receiver
):
    request = a_request(open_to_local, caller.tenant_id, receiver.url)

    assert send_due(open_to_local) == 1

    (headers, body), (row,) = receiver.seen[0], stored(open_to_local)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert json.loads(body)["data"] == {
        "id": ids.encode("fgt", request.id),
        "kind": "forget_request",
        "href": f"/v1/forget-requests/{ids.encode('fgt', request.id)}",
        "external_id": "ticket 7",
    }
    assert (row.state, row.attempts, row.last_status) == ("delivered", 1, 204)
    assert send_due(open_to_local) == 0, "once is enough"


def test_a_failure_is_tried_again_under_the_same_id_and_a_new_time(open_to_local, caller, receiver):
    receiver.statuses = [500, 302, 204]
    a_request(open_to_local, caller.tenant_id, receiver.url)

    for _ in range(3):
        send_due(open_to_local)
        with open_to_local.db.begin() as session:
            for row in session.scalars(select(Delivery).where(Delivery.next_at.is_not(None))):
                row.next_at = clock(session)

    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1
    (row,) = stored(open_to_local)
    assert (len(receiver.seen), row.attempts, row.state) == (3, 3, "delivered")


def test_the_receiver_may_ask_for_time_and_may_be_gone(open_to_local, caller, receiver):
    receiver.statuses, receiver.headers = [503, 410], {"Retry-After": "4000"}
    a_request(open_to_local, caller.tenant_id, receiver.url)

    send_due(open_to_local)
    (row,) = stored(open_to_local)
    assert row.next_at is not None
    assert row.next_at - row.created_at > timedelta(seconds=3_900)

    with open_to_local.db.begin() as session:
        session.get_one(Delivery, row.id).next_at = clock(session)
    send_due(open_to_local)
    assert [(row.state, row.next_at) for row in stored(open_to_local)] == [("failed", None)]


def test_attempts_spread_over_days_and_end():
    failed = courier.Answer(500)
    waits = [courier.wait_after(attempts, failed) for attempts in range(1, 11)]

    assert waits[-1] is None
    for wait, least in zip(waits[:-1], (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400), strict=True):
        assert wait is not None
        assert least <= wait <= 1.1 * least


def test_an_attempt_ends_however_slowly_the_answer_drips(open_to_local, monkeypatch):
    monkeypatch.setattr(courier, "SECONDS", 0.3)
    with dripping() as url:
        found = courier.attempt(letters.Letter(ids.new(), url, SECRET, b"{}"), open_to_local, LOCAL)

    assert (found.status, found.error) == (None, "ReadTimeout")


def test_nobody_waits_for_a_receiver_that_is_slow(open_to_local, caller, receiver, monkeypatch):
    monkeypatch.setattr(courier, "POLL_SECONDS", 0.02)
    sender = courier.Courier(open_to_local, lambda: True)
    with receiving() as slow:
        slow.may_answer.clear()
        a_request(open_to_local, caller.tenant_id, slow.url)
        sender.start()
        try:
            until(lambda: slow.seen)
            for number in (1, 2):  # the second is due while the slow one is still out
                a_request(open_to_local, caller.tenant_id, receiver.url)
                until(lambda number=number: len(receiver.seen) == number)
            a_request(open_to_local, caller.tenant_id, slow.url)  # waits for its turn
            assert stored(open_to_local)[0].state == "pending"
            slow.may_answer.set()
            until(lambda: [row.state for row in stored(open_to_local)] == ["delivered"] * 4)
        finally:
            slow.may_answer.set()
            sender.stop()
    assert [len(one.seen) for one in (slow, receiver)] == [2, 2]


def test_a_tenant_has_its_share_and_leaves_the_rest_to_others(service, caller):
    other = a_tenant(service, "another")
    many = [a_request(service, caller.tenant_id, f"https://r{i}.example/hook") for i in range(6)]
    with service.db.begin() as session:
        for _ in range(130):
            session.add(messages.message(many[0], "forget.due_soon", many[0].created_at))
    a_request(service, other.id, "https://late.example/hook")

    found = letters.due(service, [])
    mine = [who for who in found if who.tenant_id == caller.tenant_id]
    assert [who.origin for who in mine] == [f"https://r{i}.example" for i in range(4)]
    assert len(found[mine[0]]) == letters.IN_A_ROW
    assert [who.origin for who in found if who.tenant_id == other.id] == ["https://late.example"]

    busy = mine[:3]
    left = [who.origin for who in letters.due(service, busy)]
    assert left == ["https://r3.example", "https://late.example"]


def test_a_private_address_is_refused_when_the_connection_is_opened(service, caller, receiver):
    a_request(service, caller.tenant_id, receiver.url)  # a name that was public when it was given

    assert send_due(service) == 0

    (row,) = stored(service)
    assert (row.state, row.last_error, receiver.seen) == ("pending", "the address is private", [])


def test_a_name_that_points_elsewhere_by_then_gains_nothing(service, caller, receiver, monkeypatch):
    port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
    answers = iter([ip_address("93.184.215.14"), ip_address("127.0.0.1")])
    monkeypatch.setattr(addresses, "resolve", lambda host, port: [next(answers)])
    url = f"https://rebinding.example:{port}/hook"
    addresses.check(url, [])

    found = courier.attempt(letters.Letter(ids.new(), url, SECRET, b"{}"), service, [])

    assert (found.error, receiver.seen) == ("the address is private", [])


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://10.2.3.4/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
        "http://93.184.215.14/x",
        "ftp://93.184.215.14/x",
        "https://user:word@93.184.215.14/x",
        "https://93.184.215.14/x#part",
        "https://93.184.215.14:99999/x",
        "https:///x",
        "https://" + "a" * 2_000 + ".example/",
    ],
)
def test_what_cannot_be_a_callback_is_refused_at_the_door(url):
    with pytest.raises(ValidationFailed) as refused:
        addresses.check(url, [])

    assert refused.value.errors[0].pointer == "/callback/url"


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::a9fe:a9fe",  # 169.254.169.254 behind NAT64
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "::7f00:1",  # 127.0.0.1, IPv4-compatible
        "::ffff:0:7f00:1",  # 127.0.0.1, IPv4-translated
        "::ffff:127.0.0.1",
        "2002:a00:1::1",  # 10.0.0.1, 6to4
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
        "fec0::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::",
    ],
)
def test_no_form_of_a_private_address_is_reached(address):
    assert not addresses.may_reach(ip_address(address), [])


def test_an_address_within_another_counts_as_itself():
    behind_nat64 = ip_address("64:ff9b::a00:1")
    assert addresses.may_reach(ip_address("64:ff9b::5db8:d70e"), [])  # 93.184.215.14
    assert addresses.may_reach(behind_nat64, addresses.networks("10.0.0.0/8"))
    assert not addresses.may_reach(behind_nat64, addresses.networks("192.168.0.0/16"))
    assert addresses.may_reach(ip_address("fec0::1"), addresses.networks("fec0::/10"))
    assert addresses.may_reach(ip_address("2606:2800:21f:cb07:6820:80da:af6b:8b2c"), [])


def test_public_addresses_allowed_networks_and_unknown_names_may_be_callbacks(monkeypatch):
    addresses.check("https://93.184.215.14/x", [])
    addresses.check("http://127.0.0.1:80/x", LOCAL)

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    addresses.check("https://not-yet.example/x", [])


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_secret_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="24 to 64"):
        signing.secret(text)


def test_a_message_is_replayed_as_one_of_its_own(open_to_local, caller, receiver):
    request = a_request(open_to_local, caller.tenant_id, receiver.url)
    send_due(open_to_local)
    (first,) = stored(open_to_local)

    again = deliveries.replay(open_to_local, caller, first.id)
    send_due(open_to_local)

    assert [row.replay_of for row in deliveries.browse(open_to_local, caller.tenant_id, request.id)] == [
        None,
        first.id,
    ]
    ids_sent = [headers["webhook-id"] for headers, _ in receiver.seen]
    assert ids_sent == [ids.encode("dlv", first.id), ids.encode("dlv", again.id)]
    stranger = Caller(ids.new(), ids.new(), frozenset({"admin"}))
    with pytest.raises(NotFound):
        deliveries.replay(open_to_local, stranger, first.id)


def test_without_a_callback_nothing_is_stored(service, caller):
    a_request(service, caller.tenant_id, None)

    assert stored(service) == []
