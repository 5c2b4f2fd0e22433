"""Data sets by name from one folder, and the order in which their classes arrive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Set:
    """Rows to learn from and rows to be judged by; classes are numbered from 0."""

    name: str
    x_train: NDArray[np.generic]
    y_train: Labels
    x_test: NDArray[np.generic]
    y_test: Labels

    @property
    def classes(self) -> int:
        return int(self.y_train.max()) + 1


def load(data: Path | None, name: str, *, pixels: bool = False, features: str | None = None) -> Set:
    """A folder of `data` with an .npz of `X_train`, `y_train`, `X_test`, `y_test`, or one of its kin.

    `features` picks one of several encoders (`X_<features>_train`, codes times `scale_<features>`); a set
    without a split that names who drew each row is split by drawer; `digits` comes with scikit-learn.
    """
    if name == "digits":
        return _digits(pixels=pixels)
    if data is None or not (data / name).is_dir():
        raise SystemExit(f"no folder of the name {name!r}: give the folder that holds the sets as --data")
    for path in sorted((data / name).glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found = _read(arrays, features)
        if found is not None and (found[0].ndim > 2) == pixels:
            return Set(name, *found)
    raise SystemExit(f"{name}: no .npz with {'images' if pixels else 'feature vectors'} of the asked kind")


def validation(data: Path | None, name: str, *, features: str | None = None) -> Set:
    """A set to make choices on: judged by its `X_val`, or else by a fifth of the training rows."""
    whole = load(data, name, features=features)
    for path in sorted((data / name).glob("*.npz")) if data is not None and name != "digits" else ():
        with np.load(path, allow_pickle=False) as arrays:
            if {"X_val", "y_val"} <= set(arrays.files):
                x = arrays["X_val"].astype(whole.x_train.dtype)
                return Set(name, whole.x_train, whole.y_train, x, arrays["y_val"])
    x_train, x_test, y_train, y_test = train_test_split(
        whole.x_train, whole.y_train, test_size=0.2, random_state=0, stratify=whole.y_train
    )
    return Set(name, x_train, y_train, x_test, y_test)


Arrays = tuple[NDArray[np.generic], Labels, NDArray[np.generic], Labels]


def _read(arrays: np.lib.npyio.NpzFile, features: str | None) -> Arrays | None:
    names = set(arrays.files)
    if features is not None and f"X_{features}_train" in names:
        scale = arrays[f"scale_{features}"]
        train, test = (
            arrays[f"X_{features}_{part}"].astype(np.float32) * scale for part in ("train", "test")
        )
        return train, arrays["y_train"], test, arrays["y_test"]
    if "X_train" in names:
        train, test = arrays["X_train"], arrays["X_test"]
        if train.dtype == np.float16:
            train, test = train.astype(np.float32), test.astype(np.float32)
        return train, arrays["y_train"], test, arrays["y_test"]
    if {"X", "y", "drawer"} <= names:
        first = arrays["drawer"] <= 15
        x, y = arrays["X"], arrays["y"]
        return x[first], y[first], x[~first], y[~first]
    return None


def _digits(*, pixels: bool) -> Set:
    digits = load_digits()
    x = (digits.images * 15).astype(np.uint8) if pixels else digits.data.astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target.astype(np.int64), test_size=0.25, random_state=0, stratify=digits.target
    )
    return Set("digits", x_train, y_train, x_test, y_test)


def states(classes: int, base: int, steps: int, seed: int) -> list[Labels]:
    """The classes that arrive at each state, in the order of `seed`; the first states take what is over."""
    order = np.random.default_rng(seed).permutation(classes)
    return [order[:base], *np.array_split(order[base:], steps)]
