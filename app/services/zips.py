"""Archives that leave while they are written: nothing of them is held but the part that goes next."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator

PART = 1 << 20  # bytes, about, of what is given out at once


def stream(members: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """A zip, stored and not compressed, of members as their bytes come."""
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, chunks in members:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                for chunk in chunks:
                    file.write(chunk)
                    if outlet.held >= PART:
                        yield outlet.take()
    yield outlet.take()


def parts(content: bytes) -> Iterator[bytes]:
    """Bytes, a part at a time."""
    for start in range(0, len(content), PART):
        yield content[start : start + PART]


class _Outlet:
    """A file that only grows; what was written is taken away part by part."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._size = 0

    @property
    def held(self) -> int:
        return len(self._held)

    def write(self, data: bytes) -> int:
        self._held += data
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing waits below."""

    def take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken
