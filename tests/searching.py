"""Looks for rows and identifiers in everything that a service leaves, in every encoding that it stores."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import redis
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray
from sqlalchemy import select, text

from app.errors import ArtifactCorrupt
from app.service import Service
from app.tables import Base, Centroid
from app.vault import KeyObject, _decrypt
from tests.stacks import Servers

VALUES = 8  # of a row, next to each other: 16 bytes of int16
DTYPES = ("<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "u1")

OWN_FILES = """
    SELECT pg_relation_filepath(oid) FROM pg_class
    WHERE relkind IN ('r', 'i', 't') AND relnamespace IN ('public'::regnamespace, 'pg_toast'::regnamespace)
"""  # not those of the server's own catalogue

Needles = Mapping[str, bytes]
Places = Iterable[tuple[str, bytes]]


def of_row(name: str, x: NDArray[Any], grid: NDArray[np.int16] | None = None) -> dict[str, bytes]:
    """Ways to write the first values of a row, as sent and on the grid: raw, as text, base64, hex."""
    values = np.asarray(x).reshape(-1)[:VALUES]
    found: dict[str, bytes] = {}
    dtypes = ["u1"] if values.dtype == np.uint8 else ["<f8", "<f4", "<f2"]
    raws = [(dtype, values.astype(dtype).tobytes()) for dtype in dtypes]
    if grid is not None:
        stepped = grid.reshape(-1)[:VALUES]
        raws += [(dtype, stepped.astype(dtype).tobytes()) for dtype in ("<i8", "<i4", "<i2", "<f8", "<f4")]
    for at, (dtype, raw) in enumerate(raws):
        found |= of_bytes(f"{name} {at} {dtype}", raw)
    for numbers in (values, values.astype(np.float64), *(() if grid is None else (stepped,))):
        some = numbers[:3].tolist()
        for separators in ((", ", ": "), (",", ":")):
            said = json.dumps(some, separators=separators)[1:-1].encode()
            found[f"{name} text {said.decode()}"] = said
    return found


def of_text(name: str, word: str) -> dict[str, bytes]:
    """Ways to write a text."""
    escaped = json.dumps(word)[1:-1].encode()
    raws = {"utf-8": word.encode(), "utf-16": word.encode("utf-16-le"), "json": escaped}
    found: dict[str, bytes] = {}
    for kind, raw in raws.items():
        found |= of_bytes(f"{name} {kind}", raw)
    return found


def of_bytes(name: str, raw: bytes) -> dict[str, bytes]:
    """Bytes as they are, in hex, and in base64 wherever they may begin."""
    found = {name: raw, f"{name} hex": raw.hex().encode(), f"{name} HEX": raw.hex().upper().encode()}
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw)
        inner = coded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        found[f"{name} base64 {before}"] = inner
        found[f"{name} base64url {before}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def hits(needles: Needles, places: Places) -> dict[str, set[str]]:
    """Place -> the names of what was found there."""
    found: dict[str, set[str]] = {}
    wanted = {raw: name for name, raw in needles.items()}
    for place, content in places:
        for raw, name in wanted.items():
            if raw in content:
                found.setdefault(place, set()).add(name)
    return found


def everywhere(
    service: Service, temporary: Path, logs: Iterable[str], servers: Servers | None
) -> Iterator[tuple[str, bytes]]:
    """Everything that this service left: files, what opens with any key, tables, pages, logs, broker."""
    yield from _files(service.settings.data_dir, "data")
    yield from _files(temporary, "temporary")
    yield "logs", "\n".join(logs).encode()
    yield from _tables(service)
    keys = key_objects(service)
    yield from opened(_copies(service.settings.objects_dir), keys)
    yield from opened_values(centroids(service), keys)
    if servers is not None:
        yield from _postgres(service, servers)
        yield from _redis(service)


def key_objects(service: Service) -> dict[UUID, KeyObject]:
    """Every key object that exists."""
    folder = service.settings.keys_dir
    return {
        UUID(hex=path.name): KeyObject.parse(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and len(path.name) == 32
    }


def _copies(folder: Path) -> dict[UUID, bytes]:
    return {
        UUID(hex=path.name): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and len(path.name) == 32
    }


def copies(service: Service) -> dict[UUID, bytes]:
    """Every sealed file as it is, as a backup has it."""
    return _copies(service.settings.objects_dir)


def centroids(service: Service) -> dict[UUID, bytes]:
    """Every ciphertext of the database, as a dump has it."""
    with service.db.read() as session:
        return {row.id: row.ciphertext for row in session.scalars(select(Centroid))}


def opened(files: Mapping[UUID, bytes], keys: Mapping[UUID, KeyObject]) -> Iterator[tuple[str, bytes]]:
    """What each file holds that any of the keys opens: not only the key that its row names."""
    ciphers = [AESGCM(key.key) for key in keys.values() if key.key is not None]
    for id, sealed in files.items():
        for cipher in ciphers:
            try:
                yield f"opened {id.hex}", b"".join(_decrypt(sealed, cipher, id))
            except ArtifactCorrupt:
                continue


def opened_values(
    values: Mapping[UUID, bytes], keys: Mapping[UUID, KeyObject]
) -> Iterator[tuple[str, bytes]]:
    """What each value of a column holds that any of the keys opens."""
    ciphers = [AESGCM(key.key) for key in keys.values() if key.key is not None]
    for id, sealed in values.items():
        for cipher in ciphers:
            try:
                yield f"value {id.hex}", cipher.decrypt(sealed[:12], sealed[12:], id.bytes)
            except Exception:
                continue


def _files(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{name} {path.relative_to(folder)}", path.read_bytes()


def _tables(service: Service) -> Iterator[tuple[str, bytes]]:
    with service.db.read() as session:
        for table in Base.metadata.sorted_tables:
            rows = [tuple(row) for row in session.execute(select(table))]
            yield f"table {table.name}", repr(rows).encode() + json.dumps(rows, default=str).encode()


def _postgres(service: Service, servers: Servers) -> Iterator[tuple[str, bytes]]:
    with service.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))  # what lies in memory goes to its pages
        files = connection.execute(text(OWN_FILES)).scalars().all()
    folder = servers.postgres_dir
    for name in files:
        for path in (folder / str(name)).parent.glob(f"{Path(str(name)).name}*"):
            yield f"pages {path.name}", path.read_bytes()
    for name, content in _files(folder / "pg_wal", "wal"):
        yield name, content.rstrip(b"\0")
    for path in folder.glob("*log*"):
        if path.is_file():
            yield f"postgres {path.name}", path.read_bytes()


def _redis(service: Service) -> Iterator[tuple[str, bytes]]:
    with redis.Redis.from_url(service.settings.broker.url) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            if kind == b"list":
                yield f"redis {key!r}", b"\n".join(client.lrange(key, 0, -1))
            elif kind == b"hash":
                yield f"redis {key!r}", b"\n".join(client.hgetall(key).values())
            elif kind == b"set":
                yield f"redis {key!r}", b"\n".join(client.smembers(key))
            elif kind == b"string":
                yield f"redis {key!r}", client.get(key)
