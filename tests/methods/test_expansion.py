"""The random expansion against Python's integers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from app.methods.parts import expansion
from app.methods.parts.expansion import Expansion, expand, largest_value, longest_row, projection
from app.methods.parts.grid import quantise


def by_hand(x: np.ndarray, width: int, seed: int) -> list[list[int]]:
    """`max(0, x B) >> 9` from the definition, one integer at a time."""
    inputs = x.shape[1]
    name = b"palimpsest" + b"".join(n.to_bytes(8, "little") for n in (seed, inputs, width))
    raw = hashlib.shake_256(name).digest(inputs * width)
    b = [
        [int.from_bytes(raw[r * width + c : r * width + c + 1], signed=True) for c in range(width)]
        for r in range(inputs)
    ]
    return [
        [max(0, sum(int(v) * b[r][c] for r, v in enumerate(row))) >> 9 for c in range(width)] for row in x
    ]


@pytest.mark.parametrize(("inputs", "normalised"), [(7, True), (40, True), (7, False), (900, False)])
def test_is_the_sum_of_integers_shifted(inputs, normalised):
    x = np.random.default_rng(0).standard_normal((5, inputs))
    rows = quantise(x, "normalised")[0] if normalised else np.rint(x * 9_000).astype(np.int16)

    found = expand(rows, Expansion(width=13, seed=4), longest_row(inputs, normalised))

    assert found.dtype == np.int32
    assert found.tolist() == by_hand(rows, 13, 4)


def test_does_not_overflow_on_the_largest_rows():
    sign = np.where(projection(0, 2_000, 3)[:, 0] < 0, -32_767, 32_767).astype(np.int16)[None]

    found = expand(sign, Expansion(width=3), longest_row(2_000, False))

    assert found.tolist() == by_hand(sign, 3, 0)
    assert found.max() > 2**20


def test_has_the_same_bits_in_float32_as_in_float64():
    rows = quantise(np.random.default_rng(1).standard_normal((50, 64)), "normalised")[0]
    given = Expansion(width=200, seed=3)
    single, _ = expansion._prepared(3, 64, 200, longest_row(64, True))
    double, _ = expansion._prepared(3, 64, 200, 2.0**40)

    assert [single.itemsize, double.itemsize] == [4, 8]
    assert expand(rows, given, longest_row(64, True)).tobytes() == expand(rows, given, 2.0**40).tobytes()


def test_has_the_same_bits_row_by_row_as_in_one_batch():
    rows = quantise(np.random.default_rng(2).standard_normal((20, 32)), "normalised")[0]
    given, longest = Expansion(width=50, seed=5), longest_row(32, True)

    together = expand(rows, given, longest)

    assert together.tobytes() == b"".join(expand(row[None], given, longest).tobytes() for row in rows)


def test_never_exceeds_the_bound_that_scores_rely_on():
    rows = quantise(np.random.default_rng(3).standard_normal((200, 16)), "normalised")[0]
    given, longest = Expansion(width=64, seed=6), longest_row(16, True)
    along = projection(6, 16, 64).T.astype(np.float64)  # rows that point along a column
    rows = np.concatenate([rows, quantise(along, "normalised")[0]])

    assert expand(rows, given, longest).max() <= largest_value(given, 16, longest)
    assert np.linalg.norm(rows.astype(np.float64), axis=1).max() <= longest


def test_another_seed_or_width_is_another_projection():
    a = projection(0, 8, 16)
    assert (a != projection(1, 8, 16)).any()
    assert (a[:, :8] != projection(0, 8, 8)).any()


def test_keeps_its_test_vector():
    assert projection(0, 2, 4).tolist() == [[-78, -58, -7, -8], [94, 123, 74, 89]]
    x = np.array([[8192, 0], [-4096, 7094]], np.int16)
    assert expand(x, Expansion(width=4), longest_row(2, True)).tolist() == by_hand(x, 4, 0)
