"""Double-double arithmetic against rational numbers, its bounds included."""

from __future__ import annotations

from fractions import Fraction
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.parts import dd_functions
from app.methods.parts import double_double as dd
from app.methods.parts.double_double import DD

floats = st.floats(-(2.0**60), 2.0**60, allow_nan=False).map(lambda v: 0.0 if abs(v) < 2.0**-60 else v)


@st.composite
def numbers(draw: st.DrawFn) -> DD:
    """A normalised pair; lo anywhere from half a unit of hi down to far below."""
    hi = draw(floats)
    share = draw(st.floats(-1, 1)) * 2.0 ** -draw(st.integers(0, 40))
    pair = dd.two_sum(np.array([[hi]]), np.array([[hi * share * 2.0**-54]]))
    return DD(pair.hi, pair.lo)


def value(x: DD) -> Fraction:
    return Fraction(float(x.hi.item())) + Fraction(float(x.lo.item()))


def normalised(x: DD) -> bool:
    return bool((x.hi + x.lo == x.hi).all())


@settings(max_examples=200, deadline=None)
@given(numbers(), numbers())
def test_adds_and_multiplies_within_its_bounds(x, y):
    for found, expected, bound in (
        (dd.add(x, y), value(x) + value(y), dd.SUM),
        (dd.multiply(x, y), value(x) * value(y), dd.PRODUCT),
        (dd.add_float(x, y.hi), value(x) + value(dd.exact(y.hi)), dd.SUM),
    ):
        assert abs(value(found) - expected) <= Fraction(bound) * abs(expected)
        assert normalised(found)


@settings(max_examples=200, deadline=None)
@given(numbers(), numbers().filter(lambda y: y.hi.item() != 0))
def test_divides_within_its_bound(x, y):
    expected = value(x) / value(y)
    assert abs(value(dd.divide(x, y)) - expected) <= Fraction(2 * dd.PRODUCT) * abs(expected)


@settings(max_examples=200, deadline=None)
@given(floats, floats)
def test_sums_and_multiplies_two_floats_without_error(a, b):
    x, y = np.array(a), np.array(b)
    assert value(dd.two_sum(x, y)) == Fraction(a) + Fraction(b)
    assert value(dd.two_product(x, y)) == Fraction(a) * Fraction(b)


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers(), min_size=1, max_size=33))
def test_sums_a_column_within_its_bound(column):
    x = DD(np.concatenate([v.hi for v in column]), np.concatenate([v.lo for v in column]))
    expected = sum((value(v) for v in column), Fraction(0))
    size = sum((abs(value(v)) for v in column), Fraction(0))
    assert abs(value(dd.total(x)) - expected) <= 6 * Fraction(dd.SUM) * size * Fraction(1001, 1000)


@settings(max_examples=100, deadline=None)
@given(st.fractions(-1000, 1000))
def test_takes_rationals_to_106_bits(fraction):
    assert abs(value(dd.from_fraction(fraction)) - fraction) <= abs(fraction) * Fraction(1, 2**106)


@settings(max_examples=100, deadline=None)
@given(numbers().filter(lambda x: x.hi.item() > 0))
def test_takes_roots_within_its_bound(x):
    root = value(dd_functions.sqrt(x))
    bound = Fraction(dd_functions.ROOT)
    assert root**2 * (1 - bound) ** 2 <= value(x) <= root**2 * (1 + bound) ** 2


def test_the_root_of_zero_is_zero():
    assert dd_functions.sqrt(dd.exact(np.zeros((1, 2)))).hi.tolist() == [[0.0, 0.0]]


def rational_exp(x: Fraction) -> Fraction:
    """The series of e**(x / 2**12), raised again; off by less than 2**-150."""
    small, term, total = x / 2**12, Fraction(1), Fraction(0)
    for i in range(1, 40):
        total += term
        term = term * small / i
        term = Fraction(round(term * 2**400), 2**400)
    for _ in range(12):
        total = Fraction(round(total * total * 2**1200), 2**1200)
    return total


@settings(max_examples=30, deadline=None)
@given(st.floats(-300, 20, allow_nan=False), st.floats(-1, 1))
def test_exponentiates_within_its_bound(hi, share):
    x = dd.two_sum(np.array([hi]), np.array([hi * share * 2.0**-54]))
    expected = rational_exp(value(x))
    found = value(dd_functions.exp(x))
    assert abs(found - expected) <= Fraction(dd_functions.EXP) * expected
    assert float(found) == pytest.approx(exp(hi), rel=1e-12)
