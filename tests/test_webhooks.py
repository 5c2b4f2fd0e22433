"""Whom a receiver of callbacks believes."""

from __future__ import annotations

import json

import pytest

from app.client import BadSignature, verify_webhook

# the example of the Standard Webhooks libraries: secret, id, time, body and the signature that they give
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = 1614265330
BODY = b'{"test": 2432232314}'
HEADERS = {
    "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "Webhook-Timestamp": str(AT),
    "Webhook-Signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def check(*, now: float = AT, body: bytes = BODY, secret: str = SECRET, **changed: str) -> dict[str, object]:
    headers = {**HEADERS, **{f"Webhook-{name}": value for name, value in changed.items()}}
    return verify_webhook(headers, body, secret, now=now)


def test_it_agrees_with_the_published_example():
    assert check() == json.loads(BODY)
    assert verify_webhook(HEADERS, BODY.decode(), SECRET, now=AT) == json.loads(BODY)


def test_one_signature_of_several_will_do():
    assert check(Signature=f"v1,AAAA {HEADERS['Webhook-Signature']} v1a,BBBB")


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY + b" "},
        {"secret": "whsec_" + "A" * 32},
        {"Id": "msg_other"},
        {"Timestamp": str(AT + 1)},
        {"Timestamp": "yesterday"},
        {"Timestamp": "-1"},
        {"Signature": "v1,"},
        {"Signature": ""},
        {"Signature": "v1,gö="},
        {"Signature": HEADERS["Webhook-Signature"].replace("v1,", "v2,")},
        {"now": AT + 301},
        {"now": AT - 301},
    ],
)
def test_it_believes_nothing_else(changed):
    with pytest.raises(BadSignature):
        check(**changed)


@pytest.mark.parametrize("name", list(HEADERS))
def test_each_header_is_needed(name):
    with pytest.raises(BadSignature, match=name.lower()):
        verify_webhook({key: value for key, value in HEADERS.items() if key != name}, BODY, SECRET, now=AT)


def test_five_minutes_pass():
    assert check(now=AT + 300)
    assert check(now=AT - 300)
