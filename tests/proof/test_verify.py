"""Signed texts: one that is altered, anywhere, or signed by another is refused."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from app.proof.canonical import canonical
from app.proof.verify import NoKey, PublicKey, Refused, check, read_keys

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = SECRET.public_key().public_bytes_raw()
KEY = PublicKey(PUBLIC, "sgk_1")
CONTENT = {"a": [1, "zwölf", None], "signed_by": {"algorithm": "Ed25519", "key": "sgk_1"}}
RAW = canonical({**CONTENT, "signature": base64.b64encode(SECRET.sign(canonical(CONTENT))).decode()})


def test_it_takes_what_was_signed():
    assert check(RAW, [KEY])["a"] == [1, "zwölf", None]
    assert check(RAW, [PublicKey(PUBLIC)])["a"] == [1, "zwölf", None]


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_a_byte_changed_anywhere_is_refused(at, change):
    altered = bytearray(RAW)
    altered[at] ^= change

    with pytest.raises(Refused):
        check(bytes(altered), [KEY, PublicKey(PUBLIC)])


@given(st.integers(0, len(RAW)), st.sampled_from([b" ", b"\n", b"0", b",", b"="]))
def test_a_byte_more_or_fewer_is_refused(at, more):
    for altered in (RAW[:at] + more + RAW[at:], RAW[:at] + RAW[at + 1 :] if at < len(RAW) else RAW[:-1]):
        with pytest.raises(Refused):
            check(altered, [KEY])


def test_the_key_of_another_is_refused():
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()

    with pytest.raises(Refused, match="altered, or the key is another's"):
        check(RAW, [PublicKey(other)])
    with pytest.raises(Refused, match="none of the keys is sgk_1"):
        check(RAW, [PublicKey(PUBLIC, "sgk_2")])


def test_what_a_revoked_key_signed_is_refused():
    with pytest.raises(Refused, match="revoked at 2026"):
        check(RAW, [PublicKey(PUBLIC, "sgk_1", "2026-01-05T09:00:00Z")])


def test_text_that_is_not_signed_is_refused():
    for content in ([1], {"a": 1}, {**CONTENT, "signature": "?"}, {"signature": "", "signed_by": 3}):
        with pytest.raises(Refused):
            check(canonical(content), [KEY])


def test_it_reads_a_key_in_every_form_it_is_published_in():
    plain = base64.b64encode(PUBLIC)
    item = {"id": "sgk_1", "public_key": plain.decode(), "revoked_at": None}
    pem = SECRET.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    for raw in (plain + b"\n", json.dumps(item), json.dumps({"items": [item]}), json.dumps([item]), pem):
        (found,) = read_keys(raw if isinstance(raw, bytes) else raw.encode())
        assert found.raw == PUBLIC


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        b"[]",
        b"3",
        b'{"items": []}',
        b"[1]",
        b'{"public_key": "AAAA"}',
        b"-----BEGIN X-----",
        b"\xff",
    ],
)
def test_what_is_no_key_is_refused(raw):
    with pytest.raises(NoKey):
        read_keys(raw)
