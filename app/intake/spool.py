"""The body of an upload goes to disk while it is hashed and counted.

The file has no name: it is gone when it is closed and when the process dies, however it dies.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

from app.config import Limits
from app.errors import BodyTooLarge, InvalidRequest
from app.intake.media import HEAD
from app.intake.rows import Source

BATCH = 4 << 20  # bytes that are hashed and written at once, in a thread, while the next ones arrive


@dataclass(frozen=True)
class Spooled:
    """A body on disk."""

    source: Source
    sha256: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.file.close()


async def spool(
    body: AsyncIterator[bytes], folder: Path, limits: Limits, check: Callable[[bytes], None]
) -> Spooled:
    """Store a body. `check` sees its first 512 bytes, or all of a shorter one, before anything is written.

    Raises `BodyTooLarge` as soon as the limit is passed, `InvalidRequest` when nothing comes for too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115
    try:
        count, sha256 = await _store(body, file, limits, check)
    except BaseException:
        file.close()
        raise
    return Spooled(Source(file, count, folder, limits), sha256)


async def _store(
    body: AsyncIterator[bytes], file: BinaryIO, limits: Limits, check: Callable[[bytes], None]
) -> tuple[int, str]:
    digest = hashlib.sha256()
    held: list[bytes] = []
    count, waiting, is_checked = 0, 0, False
    writing: asyncio.Future[None] | None = None

    def write(parts: list[bytes]) -> None:
        for part in parts:
            digest.update(part)
            view = memoryview(part)
            while view:
                view = view[file.write(view) :]

    try:
        async for chunk in _timely(body, limits.idle_seconds):
            held.append(chunk)
            count += len(chunk)
            waiting += len(chunk)
            if count > limits.body_bytes:
                raise BodyTooLarge(f"the body has more than {limits.body_bytes} bytes")
            if not is_checked and count >= HEAD:
                check(b"".join(held)[:HEAD])
                is_checked = True
            if waiting >= BATCH:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(write, held))
                held, waiting = [], 0
        if not is_checked:
            check(b"".join(held))
    finally:
        if writing is not None:
            await writing
    await asyncio.to_thread(write, held)
    return count, digest.hexdigest()


async def _timely(body: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidRequest(f"the body stopped for {seconds:g} seconds") from None
        yield chunk
