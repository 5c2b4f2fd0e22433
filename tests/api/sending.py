"""Sends datasets in tests, and looks for what should not be there afterwards."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import func, select

from app import ids
from app.service import Service
from app.services.datasets import shards
from app.tables import Base, Dataset, IdempotencyRecord, Sample, SampleSubject, Shard

MEDIA = {
    "npz": "application/x-npz",
    "npy": "application/x-npy",
    "safetensors": "application/x-safetensors",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "images": "application/zip",
}
STORED = (Dataset, Shard, Sample, SampleSubject, IdempotencyRecord)
_numbers = itertools.count()


def send(client, body: bytes, format: str, *, key: str | None = None, headers=None, **query):
    """POST a dataset with a fresh idempotency key."""
    kind = MEDIA.get(format, format)
    return client.post(
        "/v1/datasets",
        content=body,
        params=query,
        headers={"Content-Type": kind, "Idempotency-Key": key or f"key-{next(_numbers)}", **(headers or {})},
    )


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    columns: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(file, **columns)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def odd_npy(header: str) -> bytes:
    """A `.npy` file of 48 bytes behind whatever header: numpy writes none of these."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)


def _header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


ODD_HEADERS = (
    _header("(True, 12)"),
    _header("(4, True)"),
    _header("(-4, -3)"),
    _header("((4, 3),)"),
    _header("(4.0, 3)"),
    _header("('4', 3)"),
    _header("4"),
    _header(f"({10**30}, 3)"),
    _header(f"({1 << 40}, {1 << 40})"),
    _header("(0, -1)"),
    _header("(1, 12" + ", 1" * 20 + ", True)"),
    _header("(4, 3)", "('<f4', (1,))"),
    _header("(4,)", "[('a', '<f4', 3)]"),
    _header("(4, 3)", "'S0'"),
    _header("(4, 3)", "'nonsense'"),
    _header("(4, 3)", "{}"),
    "{[]: 1}",
    "{'descr': '<f4'",
    "(" * 100,
    "__import__('os')",
    "",
)


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zip:
        for name, content in members.items():
            zip.writestr(name, content)
    return file.getvalue()


def rows_of(service: Service, dataset: str) -> dict[str, Any]:
    """Everything that is stored of a dataset, in one piece."""
    blocks = list(shards.read(service, ids.decode("dst", dataset)))
    return {
        "positions": np.concatenate([block.positions for block in blocks]),
        "x": np.concatenate([block.x for block in blocks]),
        "labels": [block.names[i] if i >= 0 else None for block in blocks for i in block.labels],
        "split": np.concatenate([block.split for block in blocks]),
        "targets": [block.targets for block in blocks],
    }


def traces(service: Service) -> dict[str, Any]:
    """How many rows of datasets, and how many files, there are."""
    with service.db.read() as session:
        found = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) for table in STORED
        }
    found["objects"] = len(list(files(service.settings.objects_dir)))
    found["keys"] = len(list(files(service.settings.keys_dir)))
    return found


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def every_byte(service: Service) -> bytes:
    """All that the data directory holds, and all that the tables answer."""
    parts = [path.read_bytes() for path in files(service.settings.data_dir)]
    with service.db.read() as session:
        for table in Base.metadata.sorted_tables:
            parts.append(repr(session.execute(select(table)).all()).encode())
    return b"".join(parts)
