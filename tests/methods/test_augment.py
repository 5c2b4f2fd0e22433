"""Augmentation: moves images and nothing else, from the generator that it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.methods.parts.augment import Jitter, quarter_turns


def images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 28, 20), (5, 8, 8, 3)])
def test_without_movement_gives_the_images_as_they_came(shape):
    x = images(*shape)

    assert torch.equal(Jitter(0, 0, 0, False)(x, np.random.default_rng(1)), x)
    tiny = Jitter(1e-9, 1e-9, 1e-9, False)(x, np.random.default_rng(1))
    assert torch.equal(tiny, x)


@pytest.mark.parametrize("shape", [(40, 8, 6), (40, 8, 6, 3)])
def test_flip_mirrors_about_half_of_the_images_left_to_right(shape):
    x = images(*shape)

    moved = Jitter(0, 0, 0, True)(x, np.random.default_rng(1))

    mirrored = [torch.equal(new, old.flip(1)) for new, old in zip(moved, x, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(moved, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 10 <= sum(mirrored) <= 30


def test_a_turned_disc_stays_a_disc_in_an_image_that_is_not_square():
    y, x = np.mgrid[:40, :60]
    disc = np.where((y - 19.5) ** 2 + (x - 29.5) ** 2 <= 15**2, 255, 0).astype(np.uint8)

    turned = Jitter(0, 90, 0, False)(torch.from_numpy(disc).expand(10, -1, -1), np.random.default_rng(0))

    difference = (turned.int() - torch.from_numpy(disc).int()).abs() > 128
    assert difference.float().mean() < 0.02


def test_shift_moves_by_no_more_than_its_share():
    x = torch.zeros(200, 21, 21, dtype=torch.uint8)
    x[:, 10, 10] = 255

    moved = Jitter(0.2, 0, 0, False)(x, np.random.default_rng(0))

    rows, columns = (moved.numpy().max(axis=axis).argmax(axis=1) for axis in (2, 1))
    for place in (rows, columns):
        assert np.abs(place - 10).max() <= 5
        assert np.abs(place - 10).max() >= 3


def test_quarter_turns_label_each_turn_as_a_class_of_its_own():
    x, y = images(3, 4, 4), torch.tensor([0, 1, 1])

    turned, labels = quarter_turns(x, y, classes=2)

    assert labels.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7]
    assert torch.equal(turned[:3], x)
    assert np.array_equal(turned[3:6].numpy(), np.rot90(x.numpy(), 1, (1, 2)))
    assert torch.equal(turned[6:9], x.flip(1, 2))


def test_images_that_are_not_square_turn_by_a_half_only():
    x = images(3, 4, 6)

    turned, labels = quarter_turns(x, torch.tensor([0, 1, 0]), classes=2)

    assert turned.shape == (6, 4, 6)
    assert torch.equal(turned[3:], x.flip(1, 2))
    assert labels.tolist() == [0, 1, 0, 2, 3, 2]
