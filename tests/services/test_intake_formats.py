"""Rows in are rows out, whatever the format: the file is written by an independent library each time."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.numpy import save

from app.config import Limits
from app.intake import parse
from app.intake.clean import Cleaner, Options
from app.intake.media import Format
from app.intake.rows import Source

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
LABELS = st.sampled_from(["wren", "ворон", "カラス", "a,b", 'quo"te', "7"])


@st.composite
def tables(draw):
    """x with what a row may carry."""
    rows, width = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    several = st.lists(st.sampled_from(["ann", "bob", "cay"]), max_size=3, unique=True)
    return {
        "x": draw(arrays(np.float32, (rows, width), elements=FLOATS)),
        "label": draw(st.lists(LABELS, min_size=rows, max_size=rows)),
        "split": draw(st.lists(st.sampled_from(["train", "eval"]), min_size=rows, max_size=rows)),
        "sample_id": [f"row-{i}" for i in range(rows)],
        "subject": draw(st.lists(several, min_size=rows, max_size=rows)),
        "target": draw(arrays(np.float64, rows, elements=st.floats(-1e300, 1e300))),
    }


def as_npz(table) -> bytes:
    file = io.BytesIO()
    persons = [(row, one) for row, some in enumerate(table["subject"]) for one in some]
    np.savez_compressed(
        file,
        x=table["x"],
        label=np.array(table["label"]),
        split=np.array(table["split"]),
        sample_id=np.array(table["sample_id"]),
        subject=np.array([one for _, one in persons[::-1]], dtype="U8"),
        subject_row=np.array([row for row, _ in persons[::-1]], dtype=np.int64),
        target=table["target"],
    )
    return file.getvalue()


def as_npz_by_column(table) -> bytes:
    return as_npz({**table, "x": np.asfortranarray(table["x"])})


def as_jsonl(table) -> bytes:
    names = list(table)
    rows = zip(*(_plain(table[name]) for name in names), strict=True)
    return "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows).encode()


def as_json(table) -> bytes:
    return json.dumps({name: _plain(values) for name, values in table.items()}).encode()


def as_json_rows(table) -> bytes:
    return b"[" + b",".join(as_jsonl(table).splitlines()) + b"]"


def as_csv(table) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    features = [f"f{i}" for i in range(table["x"].shape[1])]
    writer.writerow(["label", *features, "split", "sample_id", "subject", "target"])
    for row, x in enumerate(table["x"]):
        others = [table["split"][row], table["sample_id"][row], "".join(table["subject"][row][:1])]
        writer.writerow([table["label"][row], *map(float, x), *others, repr(float(table["target"][row]))])
    return file.getvalue().encode()


def as_parquet(table) -> bytes:
    columns = {**table, "x": table["x"].tolist()}
    return _parquet(pyarrow.table(columns))


def as_parquet_of_columns(table) -> bytes:
    features = {f"f{i}": table["x"][:, i] for i in range(table["x"].shape[1])}
    return _parquet(pyarrow.table({**features, **{name: table[name] for name in table if name != "x"}}))


def as_safetensors(table) -> bytes:
    names = sorted(set(table["label"]))
    return save(
        {
            "x": table["x"],
            "label": np.array([names.index(one) for one in table["label"]], dtype=np.int64),
            "split": np.array([one == "eval" for one in table["split"]], dtype=np.uint8),
            "target": table["target"],
        },
        {"classes": json.dumps(names)},
    )


def _parquet(table) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def _plain(values) -> list[Any]:
    return list(values.tolist() if isinstance(values, np.ndarray) else values)


def read(format: Format, body: bytes, limits: Limits | None = None, **options):
    """What the parser and the checks make of a body."""
    limits = limits or Limits()
    cleaner = Cleaner(Options(**options), limits, spelled, {})
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        source = Source(file, len(body), Path(tempfile.gettempdir()), limits)
        parts = [cleaner.clean(chunk) for chunk in parse(format, source)]
    cleaner.finish()
    return cleaner, parts


def spelled(text: str) -> str:
    """Stands for the keyed digest: 64 hex digits that can be read again."""
    return text.strip().encode().hex().ljust(64, "0")


def told(digest: str) -> str:
    return bytes.fromhex(digest).rstrip(b"\0").decode()


def joined(cleaner, parts) -> dict[str, Any]:
    return {
        "x": np.concatenate([part.x for part in parts]),
        "positions": [p for part in parts for p in part.positions.tolist()],
        "label": [cleaner.names[i] if i >= 0 else None for part in parts for i in part.labels],
        "split": [["train", "eval"][i] for part in parts for i in part.split],
        "sample_id": [told(one) for part in parts for one in part.samples],
        "subject": [sorted(map(told, some)) for part in parts for some in part.subjects],
        "target": np.concatenate([part.targets for part in parts]),
    }


WRITERS = {
    "npz": (Format.NPZ, as_npz),
    "npz by column": (Format.NPZ, as_npz_by_column),
    "jsonl": (Format.JSONL, as_jsonl),
    "json": (Format.JSON, as_json),
    "json rows": (Format.JSON, as_json_rows),
    "csv": (Format.CSV, as_csv),
    "parquet": (Format.PARQUET, as_parquet),
    "parquet of columns": (Format.PARQUET, as_parquet_of_columns),
    "safetensors": (Format.SAFETENSORS, as_safetensors),
}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), rows=st.sampled_from([1, 3, 8_192]))
def test_gives_back_what_was_written(name, table, rows):
    format, write = WRITERS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.intake.rows.BLOCK_ROWS", rows)
        found = joined(*read(format, write(table)))

    assert found["x"].dtype == np.float32
    assert np.array_equal(found["x"], table["x"])
    assert found["label"] == table["label"]
    assert found["split"] == table["split"]
    assert np.array_equal(found["target"], table["target"])
    assert found["positions"] == list(range(len(table["x"])))
    if format is not Format.SAFETENSORS:
        persons = [some[:1] for some in table["subject"]] if format is Format.CSV else table["subject"]
        assert found["sample_id"] == table["sample_id"]
        assert found["subject"] == [sorted(some) for some in persons]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "i8", "u2", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_number_becomes_float32(dtype, order):
    x = np.array([[0, 1, 0], [1, 1, 0]], dtype=dtype, order=order)
    file = io.BytesIO()
    np.save(file, x)

    cleaner, parts = read(Format.NPY, file.getvalue())

    assert cleaner.dtype == np.float32
    assert np.array_equal(parts[0].x, x.astype(np.float32))


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 3)])
def test_arrays_of_bytes_with_three_or_four_dimensions_stay_images(shape):
    x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    file = io.BytesIO()
    np.save(file, x)

    cleaner, parts = read(Format.NPY, file.getvalue())

    assert cleaner.dtype == np.uint8
    assert np.array_equal(parts[0].x, x)


def test_small_images_may_come_as_json():
    x = [[[0, 255], [7, 8]], [[1, 2], [3, 4]]]

    cleaner, parts = read(Format.JSON, json.dumps({"x": x}).encode())

    assert cleaner.dtype == np.uint8
    assert parts[0].x.tolist() == x


def folder_of(images: dict[str, Image.Image]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("empty/", b"")
        archive.writestr("__MACOSX/cats/._1.png", b"ignored")
        archive.writestr("cats/.DS_Store", b"ignored")
        for name, image in images.items():
            content = io.BytesIO()
            image.save(content, name.rsplit(".", 1)[1].upper())
            archive.writestr(name, content.getvalue())
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_come_from_one_folder_per_class(mode):
    shape = (4, 6) if mode == "L" else (4, 6, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    names = ["cats/1.png", "dogs/1.bmp", "cats/2.png"]
    body = folder_of({name: Image.fromarray(p) for name, p in zip(names, pixels, strict=True)})

    cleaner, parts = read(Format.IMAGES, body)

    assert np.array_equal(parts[0].x, pixels)
    assert [cleaner.names[i] for i in parts[0].labels] == ["cats", "dogs", "cats"]
    assert list(cleaner.declared) == ["empty"]


def test_grey_images_among_colour_become_colour():
    grey = np.full((2, 2), 9, dtype=np.uint8)
    colour = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    _, parts = read(
        Format.IMAGES, folder_of({"a/1.png": Image.fromarray(grey), "a/2.png": Image.fromarray(colour)})
    )

    assert np.array_equal(parts[0].x, [np.stack([grey] * 3, axis=-1), colour])


def test_integer_labels_are_their_decimal_strings():
    body = io.BytesIO()
    np.savez(body, x=np.zeros((3, 1)), label=np.array([7, -1, 7]))

    cleaner, parts = read(Format.NPZ, body.getvalue())

    assert [cleaner.names[i] for i in parts[0].labels] == ["7", "-1", "7"]


def test_a_csv_may_hold_one_column_of_lists():
    _, parts = read(Format.CSV, b'label,x\nwren,"[1, 2.5]"\nrobin,"[3, -4]"\n')

    assert parts[0].x.tolist() == [[1, 2.5], [3, -4]]


def test_a_csv_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does():
    _, parts = read(Format.CSV, b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n")

    assert parts[0].x.tolist() == [[1, 2], [3, 4]]


def test_rows_of_another_width_keep_their_number_when_left_out():
    cleaner, parts = read(Format.CSV, b"a,b\n1,2\n3\n4,5\n", on_invalid="quarantine")

    assert [p for part in parts for p in part.positions.tolist()] == [0, 2]
    assert cleaner.findings["wrong-dimension"].rows == [1]
    assert cleaner.total == 3
