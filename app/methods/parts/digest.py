"""The digest of arrays: what two parties who hold the same numbers must both get. See `docs/digests.md`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = frozenset({"<i8", "<f4", "|u1"})


def array_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256, hex, over the arrays in the order of the bytes of their names.

    Of each array: its name and its type (`<i8`, `<f4` or `|u1`) as ASCII, each preceded by its length, the
    number of dimensions, the dimensions, and the row-major bytes. Every length, number and dimension is
    8 bytes, little-endian. Raises `TypeError` for another type.
    """
    sha = hashlib.sha256()
    for name in sorted(arrays, key=str.encode):
        array = np.asarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in DTYPES:
            raise TypeError(f"'{name}' has type {array.dtype.str}, not one of {sorted(DTYPES)}")
        for text in (name.encode("ascii"), array.dtype.str.encode("ascii")):
            sha.update(_length(len(text)) + text)
        sha.update(_length(array.ndim) + b"".join(_length(size) for size in array.shape))
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def label_keys(keys: Sequence[str]) -> NDArray[np.uint8]:
    """Label keys as one array: for each key the length of its UTF-8 bytes, then these bytes."""
    raw = b"".join(_length(len(text)) + text for text in map(str.encode, keys))
    return np.frombuffer(raw, np.uint8)


def class_map_digest(ids: Sequence[bytes], classes: Sequence[str]) -> str:
    """The digest of a class map: ids (16 bytes each) and label keys, in the order of the label keys."""
    table = np.frombuffer(b"".join(ids), np.uint8).reshape(len(ids), 16)
    return array_digest({"ids": table, "classes": label_keys(classes)})


def _length(value: int) -> bytes:
    return value.to_bytes(8, "little")
