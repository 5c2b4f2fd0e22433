"""What every request passes, once and cheaply: its id, its caller, the limit on its body, log and metrics."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import ids
from app.api.problems import render
from app.config import Limits
from app.errors import AppError, BodyTooLarge, NotReady, Unauthorized
from app.logs import request_context
from app.metrics import HTTP_REQUESTS, HTTP_SECONDS
from app.service import Caller
from app.services.callers.keys import Keys

log = logging.getLogger("palimpsest.http")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
PUBLIC = frozenset({"/v1/version", "/v1/certificate-keys"})
STREAMS = re.compile(r"/v1/(datasets|uploads|models/[^/]+/versions/import)/?")
WHILE_RECONCILING = re.compile(r"/v1/(jobs|forget-requests|audit-events)(/|$)")
JSON_MEDIA = re.compile(rb"\s*(application/([a-z0-9.+-]*\+)?json)?\s*(;.*)?", re.IGNORECASE)


class Edge:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, *, keys: Keys, limits: Limits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        answer = _Answer(send, request_id)
        with request_context(request_id):
            try:
                await self._check(scope, headers, state)
                await self._app(scope, self._limited(scope, headers, receive), answer)
            except AppError as error:
                await render(error, scope)(scope, receive, answer)
            except Exception:
                log.exception("request failed")
                if answer.status:
                    raise  # half an answer is out: the server must cut the connection
                failed = AppError("the service failed; its log has this request id")
                await render(failed, scope)(scope, receive, answer)
            finally:
                _tell(scope, state, answer.status, time.perf_counter() - started)

    async def _check(self, scope: Scope, headers: Mapping[bytes, bytes], state: dict[str, object]) -> None:
        path: str = scope["path"]
        if not path.startswith("/v1/") or path in PUBLIC:
            return
        authorization = headers.get(b"authorization", b"")
        state["caller"] = await self._caller(authorization, str(state["request_id"]), path)
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > (limit := self._limit(scope, headers)):
            raise BodyTooLarge(f"the body is over the limit of {limit} bytes")

    async def _caller(self, authorization: bytes, request_id: str, path: str) -> Caller:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Unauthorized("send Authorization: Bearer with an API key")
        door = self._keys.remembered()
        if door is None:
            try:
                door = await to_thread.run_sync(self._keys.load)
            except SQLAlchemyError:
                raise NotReady("the database does not answer now") from None
        caller = self._keys.caller(door, token.decode("latin-1").strip(), request_id)
        if door.reconciling and not WHILE_RECONCILING.match(path):
            raise NotReady(
                "a restored backup is being brought up to the ledger; its jobs are at /v1/jobs",
                headers={"Retry-After": "5"},
            )
        return caller

    def _limit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> int:
        """Large bodies go only where they are streamed: any other route reads its body into memory."""
        is_json = JSON_MEDIA.fullmatch(headers.get(b"content-type", b""))
        streams = STREAMS.fullmatch(scope["path"]) and not is_json
        return self._limits.body_bytes if streams else self._limits.json_bytes

    def _limited(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        if scope["method"] in ("GET", "HEAD"):
            return receive
        limit, seen = self._limit(scope, headers), 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise BodyTooLarge(f"the body is over the limit of {limit} bytes")
            return message

        return counted


class _Answer:
    """`send`, remembering the status and adding what every answer carries."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            names = {name for name, _ in headers}
            headers.append((b"x-request-id", self._request_id))
            if b"cache-control" not in names:
                headers.append((b"cache-control", b"private, no-cache" if b"etag" in names else b"no-store"))
        await self._send(message)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id")
    if given is not None and REQUEST_ID.fullmatch(given):
        return given.decode()
    return ids.encode("req", ids.new())


def _tell(scope: Scope, state: Mapping[str, object], status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if route != "none" else "any"
    HTTP_REQUESTS.labels(route, method, str(status)).inc()
    HTTP_SECONDS.labels(route, method).observe(seconds)
    if log.isEnabledFor(logging.INFO):
        caller = state.get("caller")
        fields = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "tenant": caller.tenant_id.hex if isinstance(caller, Caller) else None,
        }
        log.info("request", extra=fields)
