"""A body that has to be in memory as a whole."""

from __future__ import annotations

from fastapi import Request

from app.errors import BodyTooLarge


async def read_body(request: Request, limit: int) -> bytes:
    """Every byte of the body; stops reading where it passes `limit`."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"the body is over the limit of {limit} bytes")
        parts.append(part)
    return b"".join(parts)
