"""Keys that are twice in one object, whatever the text around them."""

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from app import json_keys
from app.errors import InvalidRequest

NAMES = st.sampled_from(["x", "label", 'quo"te', "back\\", ":", "ворон", ""])
LEAVES = st.one_of(NAMES, st.floats(allow_nan=False), st.none(), st.lists(NAMES, max_size=2))


def text(pairs):
    return "{" + ", ".join(f"{json.dumps(key)} : {json.dumps(value)}" for key, value in pairs) + "}"


def is_twice(pairs):
    return len({key for key, _ in pairs}) < len(pairs)


def expected(twice):
    return pytest.raises(InvalidRequest, match="twice") if twice else nullcontext()


@given(st.lists(st.tuples(NAMES, LEAVES), max_size=4))
def test_finds_a_key_in_one_object_with_and_without_what_was_read(pairs):
    raw = text(pairs).encode()
    with expected(is_twice(pairs)):
        json_keys.check(raw)
    with expected(is_twice(pairs)):
        json_keys.check(raw, strings=json_keys.strings_of(from_json(raw)))


@given(st.lists(st.lists(st.tuples(NAMES, LEAVES), max_size=3), max_size=3))
def test_finds_it_in_any_of_many_and_takes_the_same_key_in_two(objects):
    raw = ("[" + ", ".join(map(text, objects)) + "]").encode()
    with expected(any(map(is_twice, objects))):
        json_keys.check(raw)


def test_names_the_key_and_where():
    with pytest.raises(InvalidRequest, match="line 3 has the key 'label' twice"):
        json_keys.check(b'{"label": "a", "label": "b"}', "line 3")


@pytest.mark.parametrize("raw", [b"", b'{"a": 1', b"\xff", b"[" * 100_000, b"1" * 5_000])
def test_leaves_what_is_no_json_to_who_reads_it(raw):
    json_keys.check(raw)


def test_parses_nothing_again_where_every_quote_is_accounted_for(monkeypatch):
    monkeypatch.setattr(json, "loads", None)
    raw = b'{"x": [1, 2], "label": "wren", "subject": ["ann", "bob"]}'
    json_keys.check(raw, strings=json_keys.strings_of(from_json(raw)))
