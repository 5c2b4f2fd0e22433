"""Pages on the wire: `page_size`, an opaque signed `page_token`, a `Link` to the next one."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from app.errors import InvalidRequest
from app.service import Caller
from app.services.callers.access import tenant_key
from app.services.paging import Page, Place, Window

SIZE, MOST = 50, 500
SIGNATURE = 16  # bytes

Item = TypeVar("Item")
Row = TypeVar("Row")


class PageOf(BaseModel, Generic[Item]):
    """One page of a list; an empty `next_page_token` ends it."""

    items: list[Item]
    next_page_token: str


@dataclass(frozen=True)
class Paging:
    """The page that a request asks for, and how its answer is put together."""

    request: Request
    size: int
    token: str

    def place(self) -> Page[Place]:
        """The page of a list in the order of `(created_at, id)`."""
        if not self.token:
            return Page(self.size)
        at, id = self._open(str, str)
        return Page(self.size, (datetime.fromisoformat(at), UUID(hex=id)))

    def number(self) -> Page[int]:
        """The page of a list in the order of a number."""
        if not self.token:
            return Page(self.size)
        return Page(self.size, self._open(int)[0])

    def answer(
        self, found: Window[Row], render: Callable[[Row], Item], response: Response, *, by: str | None = None
    ) -> PageOf[Item]:
        """The page on the wire, `Link` included; `by` names the number that orders it."""
        token = ""
        if found.more:
            last: Any = found.rows[-1]
            token = self._seal([getattr(last, by)] if by else [last.created_at.isoformat(), last.id.hex])
            response.headers["Link"] = f'<{self._next(token)}>; rel="next"'
        return PageOf(items=[render(row) for row in found.rows], next_page_token=token)

    def _filters(self) -> list[tuple[str, str]]:
        fields = self.request.query_params.multi_items()
        return sorted((k, v) for k, v in fields if k not in ("page_token", "page_size"))

    def _next(self, token: str) -> str:
        fields = [*self._filters(), ("page_size", str(self.size)), ("page_token", token)]
        return f"{self.request.url.path}?{urlencode(fields)}"

    def _sign(self, payload: bytes) -> bytes:
        caller: Caller = self.request.state.caller
        key = tenant_key(self.request.app.state.service, caller.tenant_id)
        bound = json.dumps(["page", self.request.url.path, self._filters()]).encode()
        return hmac.digest(key, bound + b"\n" + payload, "sha256")[:SIGNATURE]

    def _seal(self, place: list[Any]) -> str:
        payload = json.dumps(place, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode().rstrip("=")

    def _open(self, *kinds: type) -> list[Any]:
        try:
            raw = base64.urlsafe_b64decode(self.token + "=" * (-len(self.token) % 4))
        except ValueError:
            raw = b""
        signature, payload = raw[:SIGNATURE], raw[SIGNATURE:]
        if not hmac.compare_digest(signature, self._sign(payload)):
            raise InvalidRequest(
                "page_token is not one of this list with these filters", pointer="page_token"
            )
        place: list[Any] = json.loads(payload)
        assert [type(part) for part in place] == list(kinds)
        return place


def _paging(
    request: Request,
    page_size: Annotated[int, Query(description="Rows of a page; more than 500 is 500.")] = SIZE,
    page_token: Annotated[str, Query(description="`next_page_token` of the page before.")] = "",
) -> Paging:
    if page_size < 0:
        raise InvalidRequest("page_size is not negative", pointer="page_size")
    return Paging(request, min(page_size or SIZE, MOST), page_token)


PagingDep = Annotated[Paging, Depends(_paging)]
