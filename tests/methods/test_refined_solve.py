"""Correctly rounded weights, against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods.parts import double_double as dd
from app.methods.parts import refined_solve
from app.methods.parts.refined_solve import System, rounded_weights, solve, until_decided
from app.methods.parts.rounding import Undecided, round_to_float32


def ridge_system(z: np.ndarray, y: np.ndarray, classes: int, k: int) -> System:
    """The centred ridge system of integer rows, one-hot targets, `n` times the usual scale."""
    n, counts = len(z), np.bincount(y, minlength=classes).astype(float)
    total, sums = z.sum(0), np.stack([z[y == c].sum(0) for c in range(classes)], axis=1)
    trace = int(n * (z * z).sum() - (total * total).sum())
    ridge = 2.0 ** (int(np.floor(np.log2(max(trace, 1) / z.shape[1]))) + k)
    right = dd.add(dd.two_product(np.asarray(float(n)), sums), -dd.two_product(total[:, None], counts[None]))
    return System(
        gram=z.T @ z,
        a=dd.exact(float(n)),
        columns=total[:, None],
        b=dd.exact(np.array([-1.0])),
        h=dd.exact(np.zeros(1)),
        over=dd.exact(1.0),
        ridge=dd.exact(ridge),
        right=right,
    )


def rational(system: System) -> list[list[Fraction]]:
    """The solution by Gaussian elimination in exact rationals."""
    width, classes = system.right.hi.shape
    a, ridge = Fraction(float(system.a.hi)), Fraction(float(system.ridge.hi))
    rows = []
    for i in range(width):
        row = [
            a * int(system.gram[i, j])
            + sum(
                Fraction(float(b)) * int(u[i]) * int(u[j])
                for b, u in zip(system.b.hi, system.columns.T, strict=True)
            )
            + (ridge if i == j else 0)
            for j in range(width)
        ]
        right = [
            Fraction(float(system.right.hi[i, c])) + Fraction(float(system.right.lo[i, c]))
            for c in range(classes)
        ]
        rows.append(row + right)
    for i in range(width):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(width):
            if j != i:
                rows[j] = [v - rows[j][i] * w for v, w in zip(rows[j], rows[i], strict=True)]
    return [row[width:] for row in rows]


def nearest(value: Fraction) -> np.float32:
    guess = np.float32(float(value))
    around = (guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf)))
    return min(around, key=lambda x: abs(Fraction(float(x)) - value))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(2, 5),
    st.integers(2, 40),
    st.sampled_from([0, -4, -12, -24]),
)
def test_is_the_rational_solution_rounded_once(seed, width, classes, rows, k):
    rng = np.random.default_rng(seed)
    z = rng.integers(-8192, 8193, (rows, width)).astype(float)
    system = ridge_system(z, rng.integers(0, classes, rows), classes, k)

    found = until_decided(system, rounded_weights)
    expected = rational(system)

    for c in range(classes):
        largest = max(abs(row[c]) for row in expected)
        for i in range(width):
            flushed = abs(expected[i][c]) < largest * Fraction(1, 2**60)
            assert found[i, c] == (0 if flushed else nearest(expected[i][c]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([-4, -18, -30]))
def test_its_bound_covers_the_true_error(seed, k):
    rng = np.random.default_rng(seed)
    z = rng.integers(-8192, 8193, (20, 6)).astype(float)
    z[:, 1] = z[:, 0]  # twice the same feature: only the ridge tells them apart
    system = ridge_system(z, rng.integers(0, 3, 20), 3, k)
    expected = rational(system)

    first = next(solve(system, digits=1))

    for c in range(3):
        error = sum(
            (Fraction(first.weights.hi[i, c]) + Fraction(first.weights.lo[i, c]) - expected[i][c]) ** 2
            for i in range(6)
        )
        assert float(error) ** 0.5 <= first.error[c]


def test_refuses_a_ridge_too_small_to_decide():
    z = np.random.default_rng(0).integers(-8192, 8193, (40, 12)).astype(float)
    z[:, 1] = z[:, 0]
    with pytest.raises(Undecided, match="ridge"):
        until_decided(ridge_system(z, np.arange(40) % 3, 3, k=-140), rounded_weights)


def test_leaves_an_entry_on_a_rounding_boundary_undecided():
    halfway = 1.0 + 2.0**-24  # between two float32
    assert round_to_float32(dd.exact(np.array([[halfway]])), np.array([1e-12])) is None
    above = round_to_float32(dd.exact(np.array([[halfway + 1e-9]])), np.array([1e-12]))
    assert above is not None
    assert above[0, 0] == np.float32(1 + 2.0**-23)


def test_says_that_a_value_is_too_large_for_float32():
    with pytest.raises(Undecided, match="too large for float32"):
        round_to_float32(dd.exact(np.array([[1e39], [1.0]])), np.array([1e-12]))
    largest = round_to_float32(dd.exact(np.array([[float(np.finfo(np.float32).max)]])), np.array([1e20]))
    assert largest is not None
    assert np.isfinite(largest).all()


def test_says_that_a_weight_lies_on_a_rounding_boundary():
    none = dd.exact(np.zeros(0))
    right = dd.exact(np.array([[1.0 + 2.0**-24]]))  # and 1 to divide it by
    one = dd.exact(1.0)
    system = System(np.zeros((1, 1)), one, np.zeros((1, 0)), none, none, one, one, right)
    with pytest.raises(Undecided, match="rounding boundary"):
        until_decided(system, rounded_weights)


def test_publishes_zero_for_what_is_far_below_its_column():
    x = dd.exact(np.array([[0.75], [2.0**-61], [2.0**-59], [-(2.0**-61)]]))
    found = round_to_float32(x, np.array([2.0**-90]))
    assert found is not None
    assert found[:, 0].tolist() == [0.75, 0.0, 2.0**-59, 0.0]


def test_leaves_an_entry_undecided_while_the_line_of_zero_may_be_on_either_side_of_it():
    x = dd.exact(np.array([[1.0], [1.5 * 2.0**-60]]))  # the line doubles where the largest exceeds 1
    assert round_to_float32(x, np.array([2.0**-90])) is None


@pytest.mark.parametrize("lo", [2.0**-80, -(2.0**-80)])
def test_rounds_by_the_low_part_what_the_high_part_leaves_halfway(lo):
    x = dd.DD(np.array([[1.0 + 2.0**-24]]), np.array([[lo]]))
    found = round_to_float32(x, np.array([2.0**-90]))
    assert found is not None
    assert found[0, 0] == np.float32(1.0 if lo < 0 else 1 + 2.0**-23)


def test_a_column_without_a_right_side_is_zero():
    z = np.random.default_rng(1).integers(-100, 100, (30, 5)).astype(float)
    system = ridge_system(z, np.zeros(30, dtype=int), 2, k=-4)
    assert not until_decided(system, rounded_weights).any()


def test_is_exact_with_a_gram_of_entries_near_2_to_the_53():
    rng = np.random.default_rng(2)
    z = rng.integers(-(2**24), 2**24, (200, 6)).astype(float)  # Gram entries near 2**53
    system = ridge_system(z / 2, np.arange(200) % 3, 3, k=-4)
    expected = rational(system)
    found = until_decided(system, rounded_weights)
    assert all(found[i, c] == nearest(expected[i][c]) for i in range(6) for c in range(3))


def test_takes_many_columns_some_at_a_time(monkeypatch):
    rng = np.random.default_rng(4)
    z = rng.integers(-8192, 8193, (40, 6)).astype(float)
    system = ridge_system(z, np.arange(40) % 5, 5, k=-12)
    expected = rational(system)
    monkeypatch.setattr(refined_solve, "COLUMNS", 2)

    first = next(solve(system, digits=1))
    found = until_decided(system, rounded_weights)

    for c in range(5):
        off = [Fraction(first.weights.hi[i, c]) + Fraction(first.weights.lo[i, c]) for i in range(6)]
        error = sum((off[i] - expected[i][c]) ** 2 for i in range(6))
        assert 0 < float(error) ** 0.5 <= first.error[c]
        assert [found[i, c] for i in range(6)] == [nearest(expected[i][c]) for i in range(6)]
