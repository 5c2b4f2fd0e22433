"""Scores: those of the head in real numbers, and the same bits alone, in a batch and in any order of sums."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from app.methods.base import Head
from app.methods.parts.expansion import Expansion, expand, largest_value, longest_row
from app.methods.parts.grid import ExponentGrid, quantise
from app.methods.parts.scoring import Scorer, top_k


def a_head(classes: int, width: int, normalise: bool, spread: float = 1.0) -> Head:
    generator = torch.Generator().manual_seed(0)
    size = torch.exp(spread * torch.randn(classes, 1, generator=generator))
    weight = torch.randn(classes, width, generator=generator) * size
    return Head(weight, torch.randn(classes, generator=generator), normalise)


def some_features(rows: int, width: int) -> np.ndarray:
    return quantise(np.random.default_rng(1).standard_normal((rows, width)), "normalised")[0]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("grid", ["normalised", ExponentGrid(exponent=-9)], ids=str)
def test_is_the_linear_head_of_a_float64_reference(normalise, grid):
    head, features = a_head(30, 200, normalise), some_features(50, 200)
    x = features * (2.0**-13 if grid == "normalised" else 2.0**-9)
    if normalise:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)

    given = Scorer(head, grid)(features)

    reference = x @ head.weight.double().numpy().T + head.bias.double().numpy()
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, reference, rtol=3e-7, atol=1e-6)


def test_sums_without_rounding():
    head, features = a_head(3, 40, normalise=False), some_features(4, 40)
    scorer = Scorer(head, "normalised")

    exact = [
        [
            sum(
                (Fraction(int(a)) * Fraction(float(b)) for a, b in zip(row, weight, strict=True)), Fraction(0)
            )
            for weight in scorer.weight
        ]
        for row in features
    ]

    assert (features.astype(np.float64) @ scorer.weight.T).tolist() == [
        [float(v) for v in row] for row in exact
    ]
    assert all(abs(value) < 2**53 for row in exact for value in row)


@pytest.mark.parametrize("width", [3, 64, 5_000])
def test_a_row_scores_the_same_bits_alone_in_a_batch_and_with_columns_in_another_order(width):
    head, features = a_head(20, width, normalise=True, spread=3.0), some_features(37, width)
    order = np.random.default_rng(2).permutation(width)

    together = Scorer(head, "normalised")(features)
    alone = np.concatenate([Scorer(head, "normalised")(row[None]) for row in features])
    shuffled = Scorer(Head(head.weight[:, order], head.bias, True), "normalised")(
        np.ascontiguousarray(features[:, order])
    )

    assert together.tobytes() == alone.tobytes() == shuffled.tobytes()


def test_the_largest_features_stay_exact():
    width = 65_536
    head = Head(torch.ones(1, width), torch.zeros(1), normalise=False)
    features = np.full((1, width), 32_767, dtype=np.int16)

    assert Scorer(head, ExponentGrid(exponent=0))(features).item() == np.float32(32_767 * width)


def test_a_row_of_zeros_and_a_class_of_zeros_score_the_bias():
    head = Head(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0.25, -3.0]), normalise=True)

    given = Scorer(head, "normalised")(np.array([[0, 0], [8192, 0]], dtype=np.int16))

    assert given.tolist() == [[0.25, -3.0], [1.25, -3.0]]


def test_top_k_is_best_first_and_the_earlier_class_first_among_equals():
    given = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]], dtype=np.float32)

    assert top_k(given, 1)[0].tolist() == [[1], [0]]
    best, values = top_k(given, 3)
    assert best.tolist() == [[1, 2, 3], [0, 1, 2]]
    assert values.tolist() == [[3.0, 3.0, 2.0], [5.0, 5.0, 5.0]]


def test_top_k_of_more_than_there_are_gives_all():
    assert top_k(np.array([[1.0, 2.0]], dtype=np.float32), 9)[0].tolist() == [[1, 0]]


@pytest.mark.parametrize("grid", ["normalised", ExponentGrid(exponent=-9)], ids=str)
def test_an_expanded_head_is_linear_in_the_expanded_row(grid):
    given, features = Expansion(width=300, seed=1), some_features(50, 24)
    head = replace(a_head(10, 300, normalise=False), expanded=True)
    longest = longest_row(24, grid == "normalised")
    z = expand(features, given, longest) * (2.0**-13 if grid == "normalised" else 2.0**-9)

    found = Scorer(head, grid, given, inputs=24)(features)

    reference = z @ head.weight.double().numpy().T + head.bias.double().numpy()
    np.testing.assert_allclose(found, reference, rtol=1e-6, atol=1e-5 * np.abs(reference).max())


def test_an_expanded_row_scores_the_same_bits_alone_as_in_a_batch_and_in_exact_integers():
    given, features = Expansion(width=700, seed=2), some_features(30, 40)
    head = replace(a_head(12, 700, normalise=False, spread=3.0), expanded=True)
    scorer = Scorer(head, "normalised", given, inputs=40)

    together = scorer(features)

    assert together.tobytes() == b"".join(scorer(row[None]).tobytes() for row in features)
    z = expand(features[:2], given, longest_row(40, True))
    exact = [[sum(int(a) * int(b) for a, b in zip(row, w, strict=True)) for w in scorer.weight] for row in z]
    assert (z.astype(np.float64) @ scorer.weight.T).tolist() == exact


def test_the_largest_expanded_row_leaves_its_weights_room_enough():
    given = Expansion(width=5_000, seed=3)
    head = replace(a_head(3, 5_000, normalise=False), expanded=True)
    scorer = Scorer(head, "normalised", given, inputs=384)

    most = largest_value(given, 384, longest_row(384, True)) * np.abs(scorer.weight).sum(axis=1)

    assert (most < 2**53).all()
    assert (np.abs(scorer.weight).max(axis=1) >= 2**22).all()


def test_an_expanded_head_asks_for_its_expansion():
    head = replace(a_head(3, 10, normalise=False), expanded=True)
    with pytest.raises(ValueError, match="expansion"):
        Scorer(head, "normalised")
