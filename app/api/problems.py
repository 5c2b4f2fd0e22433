"""Every error in one shape: application/problem+json (RFC 9457), with a code from a closed list."""

from __future__ import annotations

import errno
import html
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError, DBAPIError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response

from app import errors
from app.errors import AppError, Fault
from app.schemas.faults import in_words
from app.services.callers.idempotency import Replay

log = logging.getLogger(__name__)

MEDIA = "application/problem+json"
RETRY_AFTER = "2"
EVERYWHERE: tuple[type[AppError], ...] = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.NotReady,
)


class ProblemFault(BaseModel):
    """One thing that is wrong."""

    pointer: str = Field(description="JSON pointer into the body, or the name of a query field or header.")
    code: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "http://localhost:8321/problems/not-found",
                "title": "There is no such thing",
                "status": 404,
                "detail": "there is no such job",
                "instance": "/v1/jobs/job_01jd8x4r9kf3v5n2m7q6t0a1bc",
                "code": "not-found",
                "request_id": "req_01jd8x4r9kf3v5n2m7q6t0a1bc",
                "retryable": False,
                "errors": [],
                "related": [],
            }
        }
    )

    type: str = Field(description="Address of a page about this code.")
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable; programs decide by it.")
    request_id: str
    retryable: bool
    errors: list[ProblemFault] = []
    related: list[str] = []


def problems(*raised: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the errors it can raise, and those that every route can."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in dict.fromkeys((*raised, *EVERYWHERE)):
        entry = by_status.setdefault(error.status, {"model": Problem, "description": ""})
        entry["description"] += f"{'; ' if entry['description'] else ''}`{error.code}`: {error.title}"
    return by_status


def render(error: AppError, scope: Any) -> JSONResponse:
    """The one place where an error becomes bytes."""
    connection = HTTPConnection(scope)
    headers = dict(error.headers)
    if error.status in (429, 503):
        headers.setdefault("Retry-After", RETRY_AFTER)
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    problem = {
        "type": f"{connection.base_url}problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": connection.url.path,
        "code": error.code,
        "request_id": scope.get("state", {}).get("request_id", ""),
        "retryable": error.retryable,
        "errors": [{"pointer": f.pointer, "code": f.code, "message": f.message} for f in error.errors],
        "related": list(error.related),
    }
    return JSONResponse(problem, error.status, headers, media_type=MEDIA)


def install(app: FastAPI) -> None:
    """Register the handlers of everything that a route may raise."""
    for kind, handler in (
        (AppError, _app_error),
        (Replay, _replay),
        (RequestValidationError, _invalid),
        (HTTPException, _http),
        (DBAPIError, _database),
        (TimeoutError, _database),
        (OSError, _system),
    ):
        app.add_exception_handler(kind, handler)
    app.add_api_route("/problems/{code}", _page, include_in_schema=False, response_class=HTMLResponse)


def faults_of(found: Sequence[Any], body: Any) -> list[Fault]:
    """Pydantic's errors as pointers into what was sent. A list whose items are wrong is not too short too."""
    places = [tuple(e["loc"]) for e in found]
    return [
        Fault(_pointer(e["loc"], e["type"], body), e["type"], in_words(e))
        for e, place in zip(found, places, strict=True)
        if e["type"] != "too_short" or not any(other[:-1] == place for other in places)
    ]


def _app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    return render(error, request.scope)


def _replay(request: Request, error: Exception) -> Response:
    assert isinstance(error, Replay)
    headers = {**error.stored.headers, "Idempotency-Replayed": "true"}
    if error.stored.body is None:
        return Response(status_code=error.stored.status, headers=headers)
    return JSONResponse(error.stored.body, error.stored.status, headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        return render(errors.InvalidRequest("the body is not JSON"), request.scope)
    if any(e["loc"][0] == "path" for e in found):
        return render(errors.NotFound("there is no such thing: the id is not one"), request.scope)
    if any(e["loc"] == ("body",) for e in found) and isinstance(error.body, bytes) and error.body:
        return render(errors.UnsupportedMedia("the body of this call is application/json"), request.scope)
    faults = faults_of(found, error.body)
    count = "a value is" if len(faults) == 1 else f"{len(faults)} values are"
    problem = errors.ValidationFailed(f"{count} not valid: see errors", errors=faults)
    return render(problem, request.scope)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, AppError):  # the limit on a body, met while it was read
        return render(error.__cause__, request.scope)
    kinds = {404: errors.NotFound, 405: errors.MethodNotAllowed, 413: errors.BodyTooLarge}
    kind = kinds.get(error.status_code, errors.InvalidRequest)
    return render(kind(str(error.detail), headers=error.headers), request.scope)


def _database(request: Request, error: Exception) -> Response:
    original = getattr(error, "orig", None)
    full = getattr(original, "sqlstate", None) == "53100" or "disk is full" in str(original)
    if full:
        return render(errors.StorageFull("the database has no space left"), request.scope)
    if isinstance(error, DataError):
        return render(
            errors.ValidationFailed("the database cannot hold a value that was sent"), request.scope
        )
    if isinstance(error, DBAPIError) and not _is_away(error):
        raise error
    log.warning("database away", extra={"error": type(error).__name__})
    return render(errors.NotReady("the database does not answer now"), request.scope)


def _is_away(error: DBAPIError) -> bool:
    return error.connection_invalidated or type(error).__name__ in ("OperationalError", "InterfaceError")


def _system(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return render(errors.StorageFull("the storage has no space left"), request.scope)
    raise error


def _pointer(loc: Sequence[int | str], kind: str, body: Any) -> str:
    where, *parts = loc
    if where != "body":
        return str(parts[0]) if parts else str(where)
    kept = list(_real_parts(parts, kind, body))
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in kept)


def _real_parts(parts: Sequence[int | str], kind: str, node: Any) -> Iterator[int | str]:
    """Leaves out what pydantic adds to a location: tags of unions, names of validators."""
    for number, part in enumerate(parts):
        inside_object = isinstance(node, dict) and part in node
        inside_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if inside_object or inside_list:
            node = node[part]
            yield part
        elif kind == "missing" and number == len(parts) - 1:
            yield part


def codes() -> dict[str, type[AppError]]:
    """Every code there is: the closed list that clients may rely on."""
    found: dict[str, type[AppError]] = {}
    waiting = [AppError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    return dict(sorted(found.items()))


async def _page(code: str) -> HTMLResponse:
    """What a code means, for people."""
    kind = codes().get(code)
    if kind is None:
        raise errors.NotFound("there is no such code")
    again = "The same call may succeed later." if kind.retryable else "The same call will fail again."
    title = html.escape(f"{kind.code}: {kind.title}")
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<h1>{html.escape(kind.title)}</h1><p>Code <code>{kind.code}</code>, status {kind.status}.</p>"
        f"<p>{again} Read its <code>detail</code> and <code>errors</code>.</p>"
    )
