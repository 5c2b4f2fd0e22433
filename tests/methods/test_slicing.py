"""Products of cut numbers, against Python's integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.parts import double_double as dd
from app.methods.parts.slicing import PRODUCT_ERROR, Digits, halves, product, reach_of, slice_columns

SEEDS = st.integers(0, 2**32 - 1)


def integers(rng: np.random.Generator, shape: tuple[int, int], bits: int) -> np.ndarray:
    return rng.integers(-(2**bits) + 1, 2**bits, shape).astype(float)


def fractions(digits: Digits, column: int) -> list[Fraction]:
    """The number that digits stand for."""
    count, columns = digits.units.shape
    places = range(column, count * columns, columns)
    rows = digits.stacked[:, list(places)].tolist()
    units = [Fraction(float(unit)) for unit in digits.units[:, column]]
    return [sum((Fraction(d) * u for d, u in zip(row, units, strict=True)), Fraction(0)) for row in rows]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([1, 5, 20, 36, 52, 53]), st.integers(1, 70))
def test_halves_are_integers_that_add_up_and_keep_to_their_reach(seed, bits, length):
    matrix = integers(np.random.default_rng(seed), (7, length), bits)
    reach = reach_of(matrix)

    low, high = halves(matrix, reach)

    unit = 2.0 ** np.floor(np.log2(reach / (np.sqrt(length) / 2)))
    assert (low + high == matrix).all()
    assert (np.rint(high / unit) == high / unit).all()
    assert (np.rint(low) == low).all()
    assert np.linalg.norm(low, axis=1).max() <= reach
    assert np.linalg.norm(high / unit, axis=1).max() <= reach


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([3, 30, 53]), st.integers(1, 40), st.integers(1, 6))
def test_a_product_is_that_of_integers_within_its_bound(seed, bits, length, count):
    rng = np.random.default_rng(seed)
    left = integers(rng, (4, length), bits)
    x = rng.standard_normal((length, 3)) * 10.0 ** rng.integers(-9, 9, (1, 3))
    digits, _ = slice_columns(dd.exact(x), reach_of(left), count)

    found, size = product(left, digits)

    for c in range(3):
        number = fractions(digits, c)
        off = Fraction(0)
        for i, row in enumerate(left.tolist()):
            exact = sum((Fraction(a) * b for a, b in zip(row, number, strict=True)), Fraction(0))
            off += (Fraction(float(found.hi[i, c])) + Fraction(float(found.lo[i, c])) - exact) ** 2
        assert float(off) ** 0.5 <= PRODUCT_ERROR * np.sqrt(size[c])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_digits_and_rest_are_the_number(seed, count):
    rng = np.random.default_rng(seed)
    hi = rng.standard_normal((9, 2)) * 10.0 ** rng.integers(-12, 3, (9, 2))
    x = dd.DD(*dd.fast_two_sum(hi, hi * 2.0**-55 * rng.random((9, 2))))

    digits, rest = slice_columns(x, 2.0**22, count)

    for c in range(2):
        number = fractions(digits, c)
        for i in range(9):
            left = Fraction(float(rest.hi[i, c])) + Fraction(float(rest.lo[i, c]))
            assert number[i] + left == Fraction(float(x.hi[i, c])) + Fraction(float(x.lo[i, c]))
        assert np.abs(rest.hi[:, c]).max() <= digits.units[-1, c] / 2 * (1 + 2.0**-20)


def test_a_column_of_zeros_has_digits_of_zero():
    digits, rest = slice_columns(dd.exact(np.zeros((5, 2))), 2.0**20, 3)
    assert not digits.stacked.any()
    assert not rest.hi.any()


def test_refuses_rows_too_long_for_any_digit():
    with pytest.raises(ValueError, match="too long"):
        slice_columns(dd.exact(np.ones((5, 2))), 2.0**52, 1)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_adding_up_is_within_its_bound_whatever_cancels(seed, terms):
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal((terms, 1)) * 10.0 ** rng.integers(-20, 20, (terms, 1))
    numbers[-1] = -numbers[:-1].sum(axis=0) if terms > 1 else numbers[-1]

    found = dd.add_up(list(numbers))

    exact = sum((Fraction(float(value)) for value in numbers[:, 0]), Fraction(0))
    off = abs(Fraction(float(found.hi[0])) + Fraction(float(found.lo[0])) - exact)
    size = sum((abs(Fraction(float(value))) for value in numbers[:, 0]), Fraction(0))
    assert off <= Fraction((terms * dd.UNIT) ** 2) * size
