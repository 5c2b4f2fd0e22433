"""The digest of arrays, against the bytes that its definition names."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from app.methods.base import Head
from app.methods.parts.digest import array_digest, class_map_digest, label_keys

DOC = Path(__file__).parents[2] / "docs" / "digests.md"


def described() -> str:
    """The digest of the vector in the document, from the bytes spelled out there."""
    found = re.search(r"SHA-256: `([0-9a-f]{64})`", DOC.read_text())
    assert found
    return found[1]


def test_agrees_with_the_test_vector_of_the_document():
    arrays = {
        "count": np.array([2, -1], "<i8"),
        "weight": np.array([[0.5, -0.25]], "<f4"),
        "classes": label_keys(["a", "ä"]),
    }

    assert array_digest(arrays) == described()


def test_is_the_hash_of_the_bytes_that_the_document_spells_out():
    block = re.search(r"```text\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert block
    raw = b"".join(bytes.fromhex(line.split("#")[0]) for line in block[1].splitlines())

    assert hashlib.sha256(raw).hexdigest() == described()


def test_does_not_depend_on_order_layout_or_byte_order():
    a, b = np.arange(6, dtype=np.int64).reshape(2, 3), np.ones(2, np.float32)

    assert array_digest({"a": a, "b": b}) == array_digest({"b": b, "a": np.asfortranarray(a).astype(">i8")})


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.arange(6).reshape(3, 2)},
        {"b": np.arange(6).reshape(2, 3)},
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"a": np.arange(6).reshape(2, 3), "b": np.zeros((0, 2), np.uint8)},
    ],
    ids=["shape", "name", "type", "one more"],
)
def test_tells_arrays_apart(other):
    assert array_digest({"a": np.arange(6).reshape(2, 3)}) != array_digest(other)


def test_refuses_a_type_that_it_does_not_define():
    with pytest.raises(TypeError, match="<f8"):
        array_digest({"a": np.zeros(1)})


def test_keeps_label_keys_apart():
    assert label_keys(["a", "b"]).tobytes() == struct.pack("<Qs", 1, b"a") + struct.pack("<Qs", 1, b"b")
    assert label_keys([]).size == 0


def test_covers_head_and_label_keys():
    head = Head(torch.ones(2, 3), torch.zeros(2), True)

    digests = {
        head.digest(["a", "b"]),
        head.digest(["a", "c"]),
        Head(head.weight, head.bias, False).digest(["a", "b"]),
        Head(head.weight, head.bias + 1, True).digest(["a", "b"]),
        Head(head.weight + 1, head.bias, True).digest(["a", "b"]),
    }

    assert len(digests) == 5


def test_covers_ids_of_a_class_map():
    one, two = bytes(16), bytes(15) + b"\1"

    assert class_map_digest([one], ["a"]) != class_map_digest([two], ["a"])
