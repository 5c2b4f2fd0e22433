"""Strong ETags from row revisions; conditional reads and changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from app.errors import PreconditionFailed, PreconditionRequired

TAG = re.compile(r'(?:W/)?"[^"]*"')


def etag(revision: int | str) -> str:
    """The quoted tag of a revision."""
    return f'"{revision}"'


def matches(header: str | None, tag: str, *, weak: bool = False) -> bool:
    """Whether a list of tags, or `*`, names this one. Weak tags only count where a read asks."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    found = TAG.findall(header)
    return tag in ([t.removeprefix("W/") for t in found] if weak else found)


def require_match(header: str | None, revision: int | str) -> None:
    """Refuses a change whose `If-Match` is missing (428) or older than the row (412)."""
    if header is None:
        raise PreconditionRequired(
            f"send If-Match with the ETag that you read, now {etag(revision)}", pointer="If-Match"
        )
    if not matches(header, etag(revision)):
        raise PreconditionFailed(f"the ETag is now {etag(revision)}", pointer="If-Match")


def reading(header: str | None) -> Callable[[int | None], None]:
    """What a service calls with the revision that is there, or None where there is nothing yet."""

    def check(revision: int | None) -> None:
        if revision is not None:
            require_match(header, revision)
        elif header is not None:
            raise PreconditionFailed("nothing is there to match", pointer="If-Match")

    return check


def body_tag(body: bytes) -> str:
    """The tag of an answer that has no revision of its own."""
    return etag(hashlib.blake2b(body, digest_size=12).hexdigest())


@dataclass(frozen=True)
class Rendered:
    """An answer made once and kept in memory: its bytes and its tag."""

    body: bytes
    tag: str
    media: str = "application/json"


def answer(request: Request, rendered: Rendered, *, headers: dict[str, str] | None = None) -> Response:
    """The bytes, or 304 where the client has them."""
    own = {"ETag": rendered.tag, **(headers or {})}
    if matches(request.headers.get("if-none-match"), rendered.tag, weak=True):
        return Response(status_code=304, headers=own)
    return Response(rendered.body, headers=own, media_type=rendered.media)
