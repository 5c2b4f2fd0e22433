"""`make demo`: what a newcomer sees."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from rich.color import Color
from rich.style import Style

from app.client import Client
from examples import demo, digits, exact, forgetting, pictures, service


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
    digests = re.findall(r"SHA-256 of (\w+) +│ (\w+)… +│ (\w+)…", said.out)
    assert [name for name, *_ in digests] == ["statistics", "weights"] * 2
    assert all(one == other for _, one, other in digests)
    assert digests[:2] != digests[2:]  # the second pair is of what remains
    _check_that_two_were_forgotten(said.out)
    assert said.err.count("completed") == 2
    assert list(tmp_path.iterdir()) == []  # the service is stopped and its directory gone


def _check_that_two_were_forgotten(out):
    assert re.findall(r"Of (writer \d+), (\d+) rows", out) == [
        (forgetting.LATE, "90"),
        (forgetting.EARLY, "90"),
    ]
    replaced = re.findall(r"│ (\S+) (\d) +│ (\d) +│ (\w+) +│ exact +│ +\d+ +│", out)
    assert replaced == [
        ("digits", "2", "4", "replay"),
        ("digits", "3", "5", "replay"),
        ("digits-joint", "1", "2", "subtract"),
        ("digits-mixed", "1", "4", "subtract"),
        ("digits-mixed", "2", "5", "subtract"),
        ("digits-mixed", "3", "6", "subtract"),
        ("digits", "1", "6", "retrain"),
        ("digits", "4", "7", "retrain"),
        ("digits", "5", "8", "retrain"),
    ]
    assert out.count("as signed: exit code 0, level E") == 2
    assert out.count("one byte altered: exit code 1, the signature is not") == 1
    assert "409 version-tainted: version 2" in out
    assert "to version 4 instead: production serves 4; then on to 5 again" in out
    assert re.search(r"production: 0\.9\d+ before \(version 5\), 0\.9\d+ after \(version 8\)", out)


def test_ends_with_an_error_where_a_promise_does_not_hold(monkeypatch, tmp_path):
    stopped: list[Path] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(service, "start", lambda folder: folder)
    monkeypatch.setattr(service, "stop", stopped.append)
    monkeypatch.setattr(Client, "local", lambda folder: nullcontext())
    monkeypatch.setattr(demo, "show", lambda api, folder: exact.must(2 + 2 == 5, "sums are right"))

    with pytest.raises(SystemExit, match="A promise does not hold: sums are right"):
        demo.main([])

    assert len(stopped) == 1


def test_digests_of_which_one_differs_are_not_equal():
    one = {"digests": {"statistics": "a", "weights": "b"}}
    other = {"digests": {"statistics": "a", "weights": "c"}}

    assert exact.are_equal([one, one])
    assert not exact.are_equal([one, other])


def test_splits_every_digit_the_same_way():
    rows = digits.load()

    assert rows.images.shape == (1797, 8, 8)
    assert rows.images.dtype == np.uint8
    assert rows.images.max() == 255
    for digit in range(10):
        share = rows.is_eval[rows.labels == digit].mean()
        assert abs(share - digits.EVAL_SHARE) < 0.01


def test_gives_every_image_a_writer_of_early_or_of_late_digits():
    rows = digits.load()

    names, counts = np.unique(rows.writers, return_counts=True)
    assert set(names) == {f"writer {number}" for number in range(1, 61)}
    assert counts.min() >= 29
    for name in names:
        wrote = rows.labels[rows.writers == name]
        assert (wrote < 5).all() if int(name.split()[1]) <= 30 else (wrote >= 5).all()


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
