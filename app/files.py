"""Bytes under an id: put, open, delete. The only place that knows directories."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import UUID


class Files(Protocol):
    """Where bytes are. An id is written once; a half-written one is never visible."""

    def put(self, id: UUID, chunks: Iterable[bytes]) -> None:
        """Store bytes, durably: temporary name, fsync, rename."""

    def open(self, id: UUID) -> BinaryIO:
        """The bytes of an id; raises `FileNotFoundError`."""

    def delete(self, id: UUID) -> None:
        """Remove an id; one that is gone already is no error."""

    def older_than(self, seconds: float) -> Iterator[UUID]:
        """Ids stored longer ago than that, for the sweep of orphans."""


class LocalFiles:
    """A local or shared directory. A client's string never becomes a path: names are ids."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / "tmp"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.temporary.mkdir(exist_ok=True, mode=0o700)

    def put(self, id: UUID, chunks: Iterable[bytes]) -> None:
        write_durably(self._path(id), self.temporary / f"{id.hex}.{os.getpid()}", chunks)

    def open(self, id: UUID) -> BinaryIO:
        return self._path(id).open("rb")

    def delete(self, id: UUID) -> None:
        path = self._path(id)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)

    def older_than(self, seconds: float) -> Iterator[UUID]:
        before = time.time() - seconds
        for path in self.root.glob("[0-9a-f][0-9a-f]/*"):
            if _is_older(path, before):
                yield UUID(hex=path.name)

    def remove_temporary(self, seconds: float) -> int:
        """Remove what a killed writer left half written; returns how many."""
        before = time.time() - seconds
        old = [path for path in self.temporary.iterdir() if _is_older(path, before)]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _path(self, id: UUID) -> Path:
        return self.root / id.hex[-2:] / id.hex  # the last byte is random; the first ones are time


def write_durably(final: Path, temporary: Path, chunks: Iterable[bytes]) -> None:
    """Store bytes so that they are there whole or not at all, and survive a power cut: written beside,
    synced, renamed. What is there already is replaced; on any failure nothing is left beside it."""
    try:
        with open(temporary, "xb", opener=private) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if not final.parent.exists():
            final.parent.mkdir(exist_ok=True, mode=0o700)
            sync_directory(final.parent.parent)
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(final.parent)


def private(path: str, flags: int) -> int:
    """Opens for `open(opener=...)` so that only the owner may read."""
    return os.open(path, flags, 0o600)


def _is_older(path: Path, before: float) -> bool:
    """Whether a file was last written before that time; one that is gone meanwhile was not."""
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False


def sync_directory(path: Path) -> None:
    """Make what was renamed into a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
