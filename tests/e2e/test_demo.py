"""`make demo`: what a newcomer sees."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rich.color import Color
from rich.style import Style

from examples import demo, pictures


@pytest.mark.slow
def test_demo_learns_ten_digits_and_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    code = demo.main([])
    said = capsys.readouterr()

    assert code == 0
    accuracies = re.findall(r"│ (\d) +│ (\w+) +│ +(\S+) +│ +(\S+) +│ +(\S+) +│", said.out)
    assert [(number, method) for number, method, *_ in accuracies] == [
        ("1", "supervised"),
        ("2", "fetril"),
        ("3", "fetril"),
    ]
    assert float(accuracies[-1][-1]) >= demo.TARGET
    assert float(re.findall(r"all ten at once.*?(0\.\d+) +│\n", said.out)[0]) >= 0.98
    assert "version 3: fetril on digits 8 and 9" in said.out
    assert said.out.count("✓") >= demo.SHOWN - 2
    for title in ("supervised learns 0 to 4", "fetril learns 5 to 7", "fetril learns 8 and 9"):
        assert re.search(rf"{title} .*100 %.*succeeded", said.err)
    assert list(tmp_path.iterdir()) == []  # the service is stopped and its directory gone


def test_splits_every_digit_the_same_way():
    images, labels, is_eval = demo.digits()

    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert images.max() == 255
    for digit in range(10):
        share = is_eval[labels == digit].mean()
        assert abs(share - demo.EVAL_SHARE) < 0.01


def test_draws_two_rows_of_pixels_in_one_line():
    image = np.array([[0, 255], [0, 255], [255, 0], [0, 255]], np.uint8)

    drawn = pictures.lines(image, coloured=False)

    assert [line.plain for line in drawn] == [" █", "▀▄"]


def test_draws_greys_on_a_terminal():
    image = np.array([[10], [200]], np.uint8)

    (line,) = pictures.lines(image, coloured=True)

    assert line.plain == "▀"
    assert line.spans[0].style == Style(
        color=Color.from_rgb(10, 10, 10), bgcolor=Color.from_rgb(200, 200, 200)
    )


def test_puts_captions_under_pictures():
    one = np.full((2, 3), 255, np.uint8)

    rows = [line.plain for line in pictures.row([one, one], ["a", "b c"], coloured=False, gap=1)]

    assert rows == ["███ ███ ", "a   b c "]
