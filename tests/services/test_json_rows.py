"""Rows in a large JSON body, against the whole body parsed by the standard library."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BodyTooLarge
from app.services.predictions import json_rows
from app.services.predictions.json_rows import split_rows
from app.services.predictions.turns import finish

MOST = 1_000


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(json_rows, "STEP", 10)


def check(body):
    """Compare with a parse of the whole."""
    found = finish(split_rows(body, MOST))
    assert found is not None
    rest, rows = found
    whole = json.loads(body)
    assert json.loads(rest) == {**whole, "inputs": []}
    assert np.array_equal(rows, np.array(whole["inputs"]))
    return rows


@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "indented"])
@pytest.mark.parametrize("shape", [(1, 1), (30, 4), (9, 3, 2), (5, 2, 2, 3)])
def test_reads_rows_of_any_shape(shape, indent):
    values = np.random.default_rng(0).normal(size=shape).tolist()
    body = {"alias": 'a "quoted" [one]', "inputs": values, "top_k": 3}

    assert check(json.dumps(body, indent=indent).encode()).shape == shape


def test_reads_whole_numbers_and_fractions_together():
    assert check(b'{"inputs": [[1, 2], [3, 4.5], [5, 6]]}').dtype == np.float64


def test_gives_way_between_steps():
    body = json.dumps({"inputs": [[1, 2, 3]] * 200}).encode()

    assert len(list(split_rows(body, MOST))) > 50


def test_stops_at_the_first_row_too_many():
    body = json.dumps({"inputs": [[1, 2, 3]] * 200}).encode() + b"and no JSON behind it"
    reading = split_rows(body, 20)
    steps = list(islice(reading, 10))

    with pytest.raises(BodyTooLarge, match="1 to 20 rows"):
        finish(reading)

    assert len(steps) == 10


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"input": [[1]]}',
        b'{"inputs": []}',
        b'{"inputs": [1, 2]}',
        b'{"inputs": [[1], 2]}',
        b'{"inputs": [[1], [2] 3]}',
        b'{"inputs": [[1] [2]]}',
        b'{"inputs": [[1],, [2]]}',
        b'{"inputs": [, [1]]}',
        b'{"inputs": [[1],]}',
        b'{"inputs": [[1, 2], [3]]}',
        b'{"inputs": [["1"]]}',
        b'{"inputs": [[null]]}',
        b'{"inputs": [[true]]}',
        b'{"inputs": [[{"a": 1}]]}',
        b'{"inputs": [[1]',
        b'{"inputs": [[1}]}',
        b'{"inputs": [[1]], "inputs": [[2]]}',
        b'{"inputs": "[[1]]"}',
    ],
)
def test_leaves_what_is_not_plain_to_the_whole_parse(body):
    assert finish(split_rows(body, MOST)) is None


@given(st.text('[]{},:" \\1.5einputsa\n', max_size=60))
def test_never_reads_what_is_no_json(text):
    """What the rest of the body allows, the standard library allows, and reads alike."""
    body = b'{"inputs": [[' + text.encode()
    found = finish(split_rows(body, MOST))
    if found is not None and is_json(found[0]):
        check(body)


def is_json(body):
    try:
        return bool(json.loads(body))
    except ValueError:
        return False
