"""Bodies that are streamed: to a nameless file on disk, counted, hashed, and then handed to a thread."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.errors import InvalidRequest
from app.intake import media
from app.intake.media import Format
from app.intake.spool import Spooled, spool
from app.service import Service
from app.services.callers.access import tenant_key
from app.services.callers.idempotency import Once

P = ParamSpec("P")
T = TypeVar("T")


async def receive(request: Request, service: Service) -> tuple[Format, Spooled]:
    """The body on disk and the format that it is in; the caller closes it."""
    found: list[Format] = []
    content_type = request.headers.get("content-type", "")
    settings = service.settings
    try:
        spooled = await spool(
            request.stream(),
            settings.objects_dir / "tmp",
            settings.limits,
            lambda head: found.append(media.check(content_type, head)),
        )
    except ClientDisconnect:
        raise InvalidRequest("the body ended too early") from None
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) != spooled.source.bytes:
        spooled.source.file.close()
        raise InvalidRequest("the body is not as long as Content-Length says")
    return found[0], spooled


async def fingerprinted(request: Request, service: Service, once: Once) -> Once:
    """The idempotency key of an upload, bound to its query and type; its bytes, to a key object."""
    key = await in_thread(tenant_key, service, once.tenant_id)
    query = sorted(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    asked = f"{request.headers.get('content-type', '')}\n{urlencode(query)}"
    return replace(once, fingerprint=hmac.digest(key, asked.encode(), "sha256").hex())


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it on a thread of the loop's own pool, so that long uploads leave the pool of routes alone."""
    return await asyncio.to_thread(function, *args, **kwargs)
