"""Scikit-learn's 8x8 digits for the demonstration: who wrote which is made up, all else is real."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from app.client import Client

EVAL_SHARE = 0.3
EARLY = 5  # digits below are written by the first writers, the others by the others
WRITERS = 30  # of either
SEED = 0


@dataclass(frozen=True)
class Digits:
    """Rows to upload."""

    images: NDArray[np.uint8]  # (rows, 8, 8)
    labels: NDArray[np.int64]  # (rows,)
    is_eval: NDArray[np.bool_]  # (rows,)
    writers: NDArray[np.str_]  # (rows,), `writer 1` to `writer 60`

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Digits:
        """Some of the rows, in the order asked for."""
        return Digits(self.images[rows], self.labels[rows], self.is_eval[rows], self.writers[rows])


def load() -> Digits:
    """The 1,797 images as uint8, three of ten of each class for evaluation."""
    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    return Digits(images, labels, _for_evaluation(labels), _writers(labels))


def send(api: Client, rows: Digits, title: str) -> str:
    """Upload rows as .npz, the writer of each as its subject; answers the id of the dataset."""
    file = io.BytesIO()
    split = np.where(rows.is_eval, "eval", "train")
    np.savez(file, x=rows.images, label=rows.labels, split=split, subject=rows.writers)
    return str(api.send(file.getvalue(), "application/x-npz", name=title)["id"])


def name(learnt: Sequence[int]) -> str:
    """`0 to 4`, `8 and 9`."""
    return f"{learnt[0]} {'and' if len(learnt) == 2 else 'to'} {learnt[-1]}"


def _for_evaluation(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), bool)
    generator = np.random.default_rng(SEED)
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        chosen[rows[: round(len(rows) * EVAL_SHARE)]] = True
    return chosen


def _writers(labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """Writers 1 to 30 wrote the digits 0 to 4 and 31 to 60 the others, about thirty images each."""
    numbers = np.zeros(len(labels), np.int64)
    for first, group in ((1, labels < EARLY), (1 + WRITERS, labels >= EARLY)):
        rows = np.flatnonzero(group)
        numbers[rows] = first + np.arange(len(rows)) * WRITERS // len(rows)
    return np.array([f"writer {number}" for number in numbers])
