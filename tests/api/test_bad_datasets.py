"""Bad uploads over HTTP: each is refused by a clear error that names the field, and nothing of it stays."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save as safetensors

from app import ids
from app.config import Limits
from app.intake import archive as intake_archive
from tests.api.sending import ODD_HEADERS, archive, jsonl, npy, npz, odd_npy, png, send, traces

X = np.arange(12, dtype=np.float32).reshape(4, 3)
NAN = np.where(X == 4, np.nan, X)
CODE_RAN: list[str] = []


class Malicious:
    def __reduce__(self) -> Any:
        return CODE_RAN.append, ("it ran",)


@dataclass(frozen=True)
class Bad:
    """A body, how it is declared, and the error that it has to meet."""

    name: str
    body: Callable[[], bytes]
    format: str
    status: int
    code: str
    pointer: str | None = None
    query: dict[str, Any] = field(default_factory=dict)


def zipped(**members: bytes) -> bytes:
    return archive({name.replace("__", "/"): content for name, content in members.items()})


def bomb() -> bytes:
    return archive({"x.npy": npy(np.zeros((200_000, 16), dtype=np.float32))}, zipfile.ZIP_DEFLATED)


def unpacked() -> bytes:
    """Within the ratio, and over the limit of two million bytes."""
    rows = np.tile(np.random.default_rng(0).integers(0, 255, (60_000, 1), dtype=np.uint8), (1, 40))
    return archive({"x.npy": npy(rows)}, zipfile.ZIP_DEFLATED)


def parquet_bomb() -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"x": np.zeros(1_000_000)})
    pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=False)
    return file.getvalue()


def linked() -> bytes:
    info = zipfile.ZipInfo("cats/1.png")
    info.external_attr = 0o120777 << 16
    return archive({info: b"/etc/passwd"})  # type: ignore[dict-item]


def png_bomb() -> bytes:
    """A PNG of some hundred bytes that says it is 60,000 x 60,000 pixels."""

    def part(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", size) + part(b"IDAT", zlib.compress(b"0")) + part(b"IEND", b"")
    )


def object_header() -> bytes:
    return npy(np.array([["a", 1]], dtype=object))


def lying_header() -> bytes:
    """A `.npy` that says it has a thousand times the rows that follow."""
    return npy(X).replace(b"(4, 3)", b"(4000, 3)", 1)


UNSAFE = (415, "unsafe-format")
MEDIA = (415, "unsupported-media")
LARGE = (413, "body-too-large")
INVALID = (422, "validation-failed")
SHAPE = (422, "dimension-mismatch")
TWICE = (400, "invalid-request")

BAD = [
    # formats
    Bad("a pickle as npz", lambda: pickle.dumps(Malicious()), "npz", *UNSAFE),
    Bad("a pickle as npy", lambda: pickle.dumps(Malicious()), "npy", *UNSAFE),
    Bad("a pickle as safetensors", lambda: pickle.dumps(Malicious()), "safetensors", *UNSAFE),
    Bad("a pickle as csv", lambda: pickle.dumps(Malicious()), "csv", *UNSAFE),
    Bad("a pickle as json", lambda: pickle.dumps(Malicious()), "json", *UNSAFE),
    Bad("a pickle of unknown type", lambda: pickle.dumps(Malicious()), "application/octet-stream", *UNSAFE),
    Bad("a npy of objects", object_header, "npy", *UNSAFE),
    Bad("a npz of objects", lambda: zipped(**{"x.npy": object_header()}), "npz", *UNSAFE),
    Bad("a pickle in a npz", lambda: zipped(**{"x.npy": npy(X), "data.pkl": b"x"}), "npz", *UNSAFE),
    Bad("a torch checkpoint", lambda: zipped(**{"model__data.pkl": b"\x80\x02."}), "images", *UNSAFE),
    Bad(
        "a pickle among images", lambda: zipped(**{"a__1.png": pickle.dumps(Malicious())}), "images", *UNSAFE
    ),
    Bad("gzip", lambda: b"\x1f\x8b\x08\x00" + b"\x00" * 20, "csv", *UNSAFE),
    Bad("random bytes", lambda: bytes(range(256)), "npy", *UNSAFE),
    Bad("a npz called npy", lambda: npz(x=X), "npy", *MEDIA, "Content-Type"),
    Bad("csv called json lines of another charset", lambda: b"x\n1\n", "text/csv; charset=latin-1", *MEDIA),
    Bad("an unknown type", lambda: npy(X), "application/octet-stream", *MEDIA, "Content-Type"),
    # archives
    Bad("a zip bomb", bomb, "npz", *LARGE),
    Bad("an archive that unpacks to too much", unpacked, "npz", *LARGE),
    Bad("a parquet bomb", parquet_bomb, "parquet", *LARGE),
    Bad("a member that leaves", lambda: zipped(**{"../x.npy": npy(X)}), "npz", *UNSAFE),
    Bad("a member from the root", lambda: zipped(**{"/x.npy": npy(X)}), "npz", *UNSAFE),
    Bad("an image that leaves", lambda: zipped(**{"a/../../1.png": png(X)}), "images", *UNSAFE),
    Bad("a link", linked, "images", *UNSAFE),
    Bad("an archive in an archive", lambda: zipped(**{"a__1.zip": zipped(a=b"1")}), "images", *UNSAFE),
    Bad("an image bomb", lambda: zipped(**{"a__1.png": png_bomb()}), "images", *LARGE, "/x/0"),
    Bad("an archive cut off", lambda: npz(x=X)[:-30], "npz", *INVALID),
    Bad("an archive with a flipped bit", lambda: flipped(npz(x=X)), "npz", *INVALID),
    # truncated and damaged
    Bad("a npy cut off", lambda: npy(X)[:-4], "npy", *INVALID),
    Bad("a npy with more behind it", lambda: npy(X) + b"\x00\x00", "npy", *INVALID),
    Bad("a npy that claims more rows", lying_header, "npy", *INVALID),
    *(
        Bad(f"a npy with header {header}", partial(odd_npy, header), "npy", *INVALID)
        for header in ODD_HEADERS
    ),
    Bad("safetensors cut off", lambda: safetensors({"x": X})[:-4], "safetensors", *INVALID),
    Bad("a parquet cut off", lambda: b"PAR1" + b"\x00" * 40, "parquet", *INVALID),
    Bad("an image cut off", lambda: zipped(**{"a__1.png": png(X)[:-25]}), "images", *INVALID, "/x/0"),
    Bad("json of neither rows nor columns", lambda: b'"x"', "json", *INVALID),
    Bad("json rows that are none", lambda: b"[[1, 2], [3, 4]]", "json", *INVALID, "/0"),
    Bad("json rows with another field", lambda: b'[{"x": [1], "colour": 1}]', "json", *INVALID, "/colour"),
    Bad("json that is none", lambda: b'{"x": [[1, 2]', "json", 400, "invalid-request"),
    Bad("a json column twice", lambda: b'{"x": [[1]], "label": ["a"], "label": ["b"]}', "json", *TWICE),
    Bad("a json key twice", lambda: b'[{"x": [1], "label": "a\\"", "x": [2]}]', "json", *TWICE),
    Bad("a key twice in a line", lambda: b'{"x": [1]}\n{"x": [1], "x": [2]}', "jsonl", *TWICE),
    Bad("a line that is no json", lambda: b'{"x": [1]}\n{"x": \n', "jsonl", *INVALID, "/1"),
    Bad("text that is no utf-8", lambda: b"a,b\n1,\xff\n", "csv", *INVALID),
    # shapes
    Bad("no rows in npy", lambda: npy(X[:0]), "npy", 422, "too-few-samples", "/x"),
    Bad("no rows in csv", lambda: b"a,b\n", "csv", 422, "too-few-samples", "/x"),
    Bad("no bytes", lambda: b"", "csv", *INVALID, "/x"),
    Bad("an empty archive", lambda: archive({}), "images", 422, "too-few-samples", "/x"),
    Bad("rows of no width", lambda: npy(X[:, :0]), "npy", *SHAPE, "/x"),
    Bad("one dimension", lambda: npy(X[0]), "npy", *SHAPE, "/x"),
    Bad("five dimensions", lambda: npy(X.reshape(1, 2, 2, 3, 1)), "npy", *SHAPE, "/x"),
    Bad("a longer csv row", lambda: b"a,b\n1,2\n1,2,3\n", "csv", *SHAPE, "/x/1"),
    Bad("a shorter json row", lambda: jsonl({"x": [1, 2]}, {"x": [1]}), "jsonl", *SHAPE, "/x/1"),
    Bad("a row too wide", lambda: npy(np.zeros((1, 501))), "npy", *LARGE, "/x"),
    Bad("too many rows", lambda: npy(np.zeros((1_001, 1))), "npy", *LARGE, "/x"),
    Bad(
        "images of two sizes", lambda: zipped(**{"a__1.png": png(X), "a__2.png": png(X.T)}), "images", *SHAPE
    ),
    Bad("an image without a folder", lambda: zipped(**{"1.png": png(X)}), "images", *INVALID, "/label/0"),
    Bad("labels for fewer rows", lambda: npz(x=X, label=["a"] * 3), "npz", *INVALID, "/label"),
    Bad(
        "labels for fewer json rows", lambda: b'{"x": [[1], [2]], "label": ["a"]}', "json", *INVALID, "/label"
    ),
    # numbers
    Bad("NaN", lambda: npy(NAN), "npy", 422, "non-finite-values", "/x/1"),
    Bad("infinity in csv", lambda: b"a,b\n1,2\n3,-inf\n", "csv", 422, "non-finite-values", "/x/1"),
    Bad("a missing value", lambda: b"a,b\n1,2\n3,\n", "csv", 422, "non-finite-values", "/x/1"),
    Bad(
        "null in json",
        lambda: jsonl({"x": [1, 2]}, {"x": [None, 2]}),
        "jsonl",
        422,
        "non-finite-values",
        "/x/1",
    ),
    Bad("float64 beyond float32", lambda: npy(X.astype("f8") * 1e40), "npy", 422, "non-finite-values"),
    Bad(
        "a target of NaN", lambda: npz(x=X, target=[1, 2, np.nan, 4]), "npz", 422, "non-finite-values", "/x/2"
    ),
    Bad("words for numbers", lambda: b"a,b\n1,2\n3,four\n", "csv", *INVALID, "/b/1"),
    Bad("words for json numbers", lambda: jsonl({"x": ["1", "2"]}), "jsonl", *INVALID, "/x/0"),
    Bad("complex numbers", lambda: npy(X.astype(complex)), "npy", *INVALID, "/x"),
    Bad("x of strings", lambda: npz(x=[["a", "b"]]), "npz", *INVALID, "/x"),
    # names
    Bad("an unknown array", lambda: npz(x=X, weight=X), "npz", *INVALID, "/weight"),
    Bad("an unknown tensor", lambda: safetensors({"x": X, "y": X}), "safetensors", *INVALID, "/y"),
    Bad("an unknown json field", lambda: jsonl({"x": [1], "colour": "red"}), "jsonl", *INVALID, "/colour"),
    Bad("pairs", lambda: npz(x_old=X, x_new=X), "npz", *INVALID, "/x_old"),
    Bad("relevance", lambda: npz(query=[1], item=[1], grade=[1]), "npz", *INVALID, "/query"),
    Bad("no x", lambda: npz(label=["a"]), "npz", *INVALID, "/x"),
    Bad("two columns of one name", lambda: b"a,a\n1,2\n", "csv", *INVALID),
    Bad("only labels", lambda: b"label\nwren\n", "csv", *INVALID, "/x"),
    # labels, splits, persons
    Bad("labels in two cases", lambda: npz(x=X, label=["wren", "Wren", "a", "b"]), "npz", *INVALID, "/label"),
    Bad(
        "labels that look alike",
        lambda: npz(x=X, label=["ворон", "вopон", "a", "b"]),
        "npz",
        *INVALID,
        "/label",
    ),
    Bad("an empty label", lambda: npz(x=X, label=["a", "", "b", "c"]), "npz", *INVALID, "/label/1"),
    Bad("a label too long", lambda: npz(x=X, label=["a" * 201] * 4), "npz", *INVALID, "/label/0"),
    Bad("a label that turns text", lambda: npz(x=X, label=["a\u202eb"] * 4), "npz", *INVALID, "/label/0"),
    Bad("labels of fractions", lambda: npz(x=X, label=[0.5] * 4), "npz", *INVALID, "/label"),
    Bad("a label without a name", lambda: named([0, 3], ["a", "b"]), "safetensors", *INVALID, "/label/1"),
    Bad(
        "too many classes",
        lambda: npz(x=np.zeros((21, 1)), label=np.arange(21)),
        "npz",
        *INVALID,
        "/label/20",
    ),
    Bad("labels twice", lambda: npz(x=X, label=["a"] * 4), "npz", *INVALID, "label", {"label": "b"}),
    Bad("an unknown split", lambda: npz(x=X, split=["train"] * 3 + ["test"]), "npz", *INVALID, "/split/3"),
    Bad("a sample id twice", lambda: npz(x=X, sample_id=list("abac")), "npz", *INVALID, "/sample_id/2"),
    Bad(
        "a subject outside the rows",
        lambda: npz(x=X, subject=["a"], subject_row=[4]),
        "npz",
        *INVALID,
        "/subject_row",
    ),
    Bad("subject rows without subjects", lambda: npz(x=X, subject_row=[1]), "npz", *INVALID, "/subject_row"),
    Bad(
        "too many subjects",
        lambda: jsonl({"x": [1], "subject": list("abcdef")}),
        "jsonl",
        *INVALID,
        "/subject/0",
    ),
    Bad(
        "a subject that is no text",
        lambda: jsonl({"x": [1], "subject": {"a": 1}}),
        "jsonl",
        *INVALID,
        "/subject/0",
    ),
    # limits and query
    Bad("a body over the limit", lambda: npy(np.zeros((1000, 60))), "npy", *LARGE),
    Bad(
        "json over its limit", lambda: json.dumps({"x": [[0.123456789] * 60] * 100}).encode(), "json", *LARGE
    ),
    Bad(
        "json over the limit of its datasets",
        lambda: json.dumps({"x": [[0.123456789] * 60] * 60}).encode(),
        "json",
        *LARGE,
    ),
    Bad("an unknown query field", lambda: npy(X), "npy", 400, "invalid-request", "colour", {"colour": "red"}),
    Bad(
        "rows to be forgotten that are consented to",
        lambda: npy(X),
        "npy",
        *INVALID,
        "reconsent",
        {"for_forget": "true", "reconsent": "true"},
    ),
    Bad("an unknown split in the query", lambda: npy(X), "npy", *INVALID, "split", {"split": "test"}),
    Bad("an unknown policy", lambda: npy(X), "npy", *INVALID, "on_invalid", {"on_invalid": "ignore"}),
]


def flipped(body: bytes) -> bytes:
    at = body.index(np.float32(5).tobytes())
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def named(labels: list[int], classes: list[str]) -> bytes:
    arrays = {"x": X[: len(labels)], "label": np.array(labels)}
    return safetensors(arrays, {"classes": json.dumps(classes)})


@pytest.fixture
def settings(settings):
    limits = Limits(
        body_bytes=400_000,
        expanded_bytes=2_000_000,
        json_bytes=60_000,
        json_dataset_bytes=40_000,
        samples=1_000,
        features=500,
        classes=20,
        subjects_per_row=5,
    )
    return settings.model_copy(update={"limits": limits})


@pytest.fixture
def before(client, service):
    return traces(service)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_refuses(client, service, before, bad):
    answer = send(client, bad.body(), bad.format, **bad.query)

    assert (answer.status_code, answer.json()["code"]) == (bad.status, bad.code), answer.text
    if bad.pointer is not None:
        assert bad.pointer in [error["pointer"] for error in answer.json()["errors"]], answer.text
    assert traces(service) == before
    assert CODE_RAN == []


def test_refuses_parquet_without_pyarrow_and_says_how_to_get_it(client, service, before, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    answer = send(client, b"PAR1" + b"\x00" * 40, "parquet")

    assert (answer.status_code, answer.json()["code"]) == MEDIA
    assert "pip install" in answer.json()["detail"]
    assert traces(service) == before


def test_names_the_first_twenty_bad_rows_and_counts_all(client):
    x = np.ones((100, 2), dtype=np.float32)
    x[40:90] = np.nan

    answer = send(client, npy(x), "npy")

    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/x/{row}" for row in range(40, 60)]
    assert "50 rows" in answer.json()["detail"]


def test_a_failure_in_the_middle_leaves_nothing(client, service, before, monkeypatch):
    """Twenty rows a shard, persons in every row, and the last shard meets a full disk."""
    monkeypatch.setattr("app.intake.rows.BLOCK_ROWS", 20)
    writes = []
    put = type(service.vault.files).put

    def full(self, id, chunks):
        writes.append(id)
        if len(writes) > 6:
            raise OSError(28, "No space left on device")
        put(self, id, chunks)

    monkeypatch.setattr(type(service.vault.files), "put", full)
    answer = send(client, npz(x=np.ones((200, 2)), subject=[f"person-{i}" for i in range(200)]), "npz")

    assert (answer.status_code, answer.json()["code"]) == (503, "storage-full")
    assert traces(service) == before


def test_a_failure_to_commit_leaves_nothing(client, service, before, monkeypatch):
    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.services.datasets.arrivals.audit.record", broken)
    answer = send(client, npz(x=X, sample_id=list("abcd")), "npz")

    assert answer.status_code == 503
    assert traces(service) == before


def test_an_unknown_dataset_is_404(client):
    name = ids.encode("dst", ids.new())

    for method, path in (("GET", name), ("GET", f"{name}/report"), ("DELETE", name), ("GET", "dst_1")):
        assert client.request(method, f"/v1/datasets/{path}").status_code == 404


def test_the_directory_of_an_archive_is_not_read_where_it_is_too_large(client, service, monkeypatch):
    monkeypatch.setattr(intake_archive, "MEMBER_BYTES", 1)
    limits = service.settings.limits.model_copy(update={"archive_members": 10})
    object.__setattr__(service, "settings", service.settings.model_copy(update={"limits": limits}))
    monkeypatch.setattr(intake_archive, "ZipFile", None)  # it would read the whole directory

    answer = send(client, npz(x=np.zeros((2, 3), np.float32), label=np.array(["a", "b"])), "npz")

    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_names_the_first_twenty_rows_with_labels_that_cannot_be_taken(client):
    rows = [{"x": [1.0], "label": label} for label in ["a", None, ["b"], "b"] * 20]
    answer = send(client, jsonl(*rows), "jsonl")

    wrong = [row for row in range(80) if row % 4 in (1, 2)][:20]
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"/label/{row}" for row in wrong]
    assert answer.json()["detail"].startswith("row 1: ")
