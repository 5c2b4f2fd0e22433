"""Canonical JSON against the vectors of RFC 8785, and as a rule for any value."""

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.proof.canonical import NotCanonical, canonical, parse

DOC = Path(__file__).parents[2] / "docs" / "certificates.md"
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | FINITE | st.integers(1 - 2**53, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)

# RFC 8785, appendix B: the bits of a double and its text
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_it_writes_numbers_as_the_standard_does(bits, text):
    (value,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical(value) == text.encode()


def test_it_orders_names_by_their_utf16_units():
    """RFC 8785, section 3.2.3."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]

    found = json.loads(canonical(dict.fromkeys(names)))

    assert list(found) == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


def test_it_escapes_no_more_than_it_must():
    text = '€$\x0f\nA\'B"\\\\"/\x7f'

    assert canonical(text).decode() == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f"'


@given(VALUES)
def test_what_it_writes_reads_back_as_the_same_value(value):
    raw = canonical(value)

    assert json.loads(raw, parse_int=float) == value
    assert canonical(parse(raw)) == raw


@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), {1: 2}, b"x", "\ud800"])
def test_it_refuses_what_has_no_canonical_text(value):
    with pytest.raises(NotCanonical):
        canonical(value)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":1,"a":1}', b"1.0", b"-0", b'"\\u0041"', b"\xff"]
)
def test_it_refuses_another_text_of_a_value(raw):
    with pytest.raises(NotCanonical):
        parse(raw)


def test_the_vector_of_the_documents_holds():
    value, text = re.findall(r"```json\n(.*?)\n```", DOC.read_text(), re.DOTALL)[:2]

    assert canonical(json.loads(value)) == text.encode()
