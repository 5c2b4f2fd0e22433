"""The grid against exact rational arithmetic: every value is the correctly rounded one."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from app.methods.parts.grid import LIMIT, UNIT_BITS, ExponentGrid, quantise, unit

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
rows = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=finite)


def half_even(value: Fraction) -> int:
    return round(value)  # of a Fraction: exact, ties to even


def root(value: Fraction) -> Fraction:
    """The square root to 200 bits, more than any tie in these tests needs."""
    scaled = value * 4**200
    return Fraction(isqrt(scaled.numerator // scaled.denominator), 2**200)


def as_integers(row: np.ndarray, bits: int) -> list[int]:
    """The row times a power of two that brings its largest value just below 2**bits, rounded half to even."""
    largest = Fraction(float(np.abs(row).max()))
    if not largest:
        return [0] * len(row)
    exponent = 0
    while largest >= Fraction(2) ** exponent:
        exponent += 1
    while largest < Fraction(2) ** (exponent - 1):
        exponent -= 1
    return [half_even(Fraction(float(v)) * Fraction(2) ** (bits - exponent)) for v in row]


def normalised(row: np.ndarray, bits: int = 20) -> list[int]:
    """`2**13 q / |q|` for the 20-bit integers `q` of the row."""
    q = as_integers(row, bits)
    length = root(Fraction(sum(v * v for v in q)))
    return [half_even(v * 2**UNIT_BITS / length) if length else 0 for v in q]


@given(rows)
@settings(deadline=None)
def test_rounds_normalised_rows_as_exact_arithmetic_does(x):
    q, clipped = quantise(x, "normalised")

    assert q.dtype == np.int16
    assert clipped == 0
    assert q.tolist() == [normalised(row) for row in x]


@given(rows, st.integers(-40, 40))
@settings(deadline=None)
def test_rounds_to_the_exponent_and_counts_what_it_clips(x, exponent):
    q, clipped = quantise(x, ExponentGrid(exponent=exponent))

    exact = [[half_even(Fraction(float(v)) / Fraction(2) ** exponent) for v in row] for row in x]
    assert q.tolist() == [[max(-LIMIT, min(LIMIT, v)) for v in row] for row in exact]
    assert clipped == sum(abs(v) > LIMIT for row in exact for v in row)


def test_rounds_ties_to_even():
    q, _ = quantise(np.array([[0.5, 1.5, 2.5, -0.5, -1.5]]), ExponentGrid(exponent=0))

    assert q.tolist() == [[0, 2, 2, 0, -2]]


def test_rounds_ties_of_normalised_rows_to_even_too():
    row = np.array([[64, 192, 1_048_575, 1_433, 51, 10, 1]], np.float64)
    assert (row**2).sum() == 2**40  # so 64 and 192 stand at 0.5 and 1.5

    assert quantise(row, "normalised")[0][0, :2].tolist() == [0, 2]


@given(rows, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_gives_a_row_the_same_values_in_any_batch(x, seed):
    order = np.random.default_rng(seed).permutation(len(x))
    whole, _ = quantise(x, "normalised")

    assert np.array_equal(quantise(x[order], "normalised")[0], whole[order])
    for i in range(len(x)):
        assert np.array_equal(quantise(x[i : i + 1], "normalised")[0][0], whole[i])


@given(rows, st.integers(-60, 60))
@settings(deadline=None)
def test_does_not_see_a_power_of_two(x, exponent):
    x = x.astype(np.float64)

    assert np.array_equal(quantise(np.ldexp(x, exponent), "normalised")[0], quantise(x, "normalised")[0])


def test_puts_the_same_values_on_the_grid_whatever_the_layout_in_memory():
    x = np.random.default_rng(0).standard_normal((40, 33)).astype(np.float32)

    assert np.array_equal(quantise(np.asfortranarray(x), "normalised")[0], quantise(x, "normalised")[0])
    assert np.array_equal(quantise(x[::-1, ::-1], "normalised")[0], quantise(x, "normalised")[0][::-1, ::-1])


def test_leaves_a_row_of_zeros_zero_beside_others():
    q, _ = quantise(np.array([[0.0, 0.0], [3.0, 4.0], [-0.0, 0.0]]), "normalised")

    assert q.tolist() == [[0, 0], [4915, 6554], [0, 0]]  # 8192 * 0.6 and 0.8


@pytest.mark.parametrize(
    "tiny", [np.float32(1e-45), np.nextafter(np.float32(0), np.float32(1)) * 3, np.float64(5e-324)]
)
def test_normalises_denormals_like_any_other_numbers(tiny):
    q, _ = quantise(np.array([[tiny, -tiny, 0]]), "normalised")

    assert q.tolist() == [[5793, -5793, 0]]  # 8192 / sqrt(2)


def test_normalises_the_largest_numbers_without_overflow():
    largest = np.finfo(np.float64).max

    assert quantise(np.array([[largest, -largest]]), "normalised")[0].tolist() == [[5793, -5793]]


@pytest.mark.parametrize(("width", "bits"), [(8_192, 20), (8_193, 18), (65_536, 18)])
def test_sums_squares_exactly_at_every_width(width, bits):
    x = np.random.default_rng(width).uniform(0.9, 1.0, (1, width))  # all near the largest: the worst sum
    q = as_integers(x[0], bits)

    assert sum(v * v for v in q) < 2**53
    assert quantise(x, "normalised")[0][0].tolist() == normalised(x[0], bits)


def test_takes_no_rows_and_gives_none():
    q, clipped = quantise(np.zeros((0, 5)), "normalised")

    assert q.shape == (0, 5)
    assert clipped == 0


def test_says_what_one_step_is_worth():
    assert unit("normalised") * 2**13 == 1
    assert unit(ExponentGrid(exponent=-3)) == 0.125


@pytest.mark.parametrize("exponent", [-41, 41, 0.5])
def test_refuses_exponents_out_of_bounds(exponent):
    with pytest.raises(ValidationError):
        ExponentGrid(exponent=exponent)
