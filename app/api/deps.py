"""What routes ask for: the service, the caller with a scope, one page, one effect, a version to change."""

from __future__ import annotations

import hmac
import json
import re
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from anyio import to_thread
from fastapi import Depends, Header, Query, Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel, ValidationError

from app import json_keys
from app.api.problems import faults_of
from app.errors import (
    Forbidden,
    InvalidRequest,
    MissingIdempotencyKey,
    Unauthorized,
    ValidationFailed,
)
from app.schemas.base import Text
from app.service import Caller, Service
from app.services.callers.access import tenant_key
from app.services.callers.idempotency import Once
from app.services.feed import Feed
from app.services.memory import Memory

M = TypeVar("M", bound=BaseModel)
MOST_WAIT = 30.0  # seconds of `Prefer: wait`
KEY_LENGTH = 255


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _memory(request: Request) -> Memory:
    memory: Memory = request.app.state.memory
    return memory


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


ServiceDep = Annotated[Service, Depends(_service)]
MemoryDep = Annotated[Memory, Depends(_memory)]
FeedDep = Annotated[Feed, Depends(_feed)]


class Allowed:
    """The caller, if its key has one of these scopes (`admin` has all).

    `caller: Annotated[Caller, Depends(Allowed("ingest"))]`
    """

    def __init__(self, *scopes: str) -> None:
        self.scopes = frozenset(scopes)

    async def __call__(self, request: Request) -> Caller:
        caller = getattr(request.state, "caller", None)
        if not isinstance(caller, Caller):
            raise Unauthorized("send Authorization: Bearer with an API key")
        if not (self.scopes | {"admin"}) & caller.scopes:
            raise Forbidden(f"this call needs an API key with scope {' or '.join(sorted(self.scopes))}")
        return caller


Reader = Annotated[Caller, Depends(Allowed("read"))]
Ingester = Annotated[Caller, Depends(Allowed("ingest"))]
Trainer = Annotated[Caller, Depends(Allowed("train"))]
Promoter = Annotated[Caller, Depends(Allowed("promote"))]
Admin = Annotated[Caller, Depends(Allowed("admin"))]

Recipient = Annotated[
    Text | None, Query(max_length=200, description="Who gets it: a forget request will list them.")
]


async def known_query(request: Request) -> None:
    """Refuses query fields that the route does not have: what is not honoured is not ignored."""
    if not request.scope["query_string"]:
        return
    known = _query_names(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            raise InvalidRequest(f"there is no query field {name[:80]!r} here", pointer=name[:80])
        if len(request.query_params.getlist(name)) > 1:  # no route has a field of several values
            raise InvalidRequest(f"query field {name!r} is there more than once", pointer=name)


async def each_key_once(request: Request) -> None:
    """Refuses a JSON body with a key that is there twice; of routes that read theirs into memory."""
    if request.scope["route"].body_field is not None:
        json_keys.check(await request.body())


def _query_names(dependant: Dependant) -> set[str]:
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_names(inner) for inner in dependant.dependencies))


def parse(schema: type[M], raw: bytes) -> M:
    """A JSON body read in one go, several times faster than a body parameter; for large ones."""
    try:
        sent = schema.model_validate_json(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise InvalidRequest("the body is not JSON") from None
        located = [{**one, "loc": ("body", *one["loc"])} for one in found]
        faults = faults_of(located, _Anything())
        raise ValidationFailed("a value is not valid: see errors", errors=faults) from None
    texts = sum(isinstance(getattr(sent, name), str) for name in sent.model_fields_set)
    json_keys.check(raw, strings=len(sent.model_fields_set) + texts)
    return sent


class _Anything(dict[Any, Any]):
    """Stands for a body that is not looked at again: every location in it is taken as it is."""

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: Any) -> _Anything:
        return self


IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="The `ETag` that was read; the change is made only while it still holds.",
        examples=['"3"'],
    ),
]


async def waits(
    prefer: Annotated[str | None, Header(description="`wait=N`: up to 30 s until the job is done.")] = None,
) -> float | None:
    """The seconds of `Prefer: wait=N`, at most 30; None without it."""
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.strip().lower() == "wait":
            if not re.fullmatch(r"\d{1,6}", value.strip()):
                raise InvalidRequest("Prefer: wait takes whole seconds", pointer="Prefer")
            return min(float(value), MOST_WAIT)
    return None


PreferWait = Annotated[float | None, Depends(waits)]


async def once_or_none(
    request: Request,
    service: ServiceDep,
    idempotency_key: Annotated[
        str | None,
        Header(description="The same key and request again get the same answer, and one effect."),
    ] = None,
) -> Once | None:
    """The idempotency key of this call with the fingerprint of its body, where one was sent."""
    once = await upload_once_or_none(request, idempotency_key)
    if once is None:
        return None
    key = await to_thread.run_sync(tenant_key, service, once.tenant_id)
    asked = _canonical(await request.body()) + b"\n" + _sorted_query(request).encode()
    return Once(once.tenant_id, once.route, once.key, hmac.digest(key, asked, "sha256").hex())


async def upload_once_or_none(
    request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> Once | None:
    """The idempotency key of an upload, whose body is not read here."""
    caller = getattr(request.state, "caller", None)
    if idempotency_key is None or not isinstance(caller, Caller):
        return None
    route = f"{request.method} {request.url.path}"
    return Once(caller.tenant_id, route, _plain_key(idempotency_key))


async def once(found: Annotated[Once | None, Depends(once_or_none)]) -> Once:
    """Like `once_or_none`, and refused without."""
    return _required(found)


async def upload_once(found: Annotated[Once | None, Depends(upload_once_or_none)]) -> Once:
    """Like `upload_once_or_none`, and refused without."""
    return _required(found)


MaybeOnceDep = Annotated[Once | None, Depends(once_or_none)]
OnceDep = Annotated[Once, Depends(once)]
UploadOnceDep = Annotated[Once, Depends(upload_once)]
MaybeUploadOnceDep = Annotated[Once | None, Depends(upload_once_or_none)]


def _required(found: Once | None) -> Once:
    if found is None:
        raise MissingIdempotencyKey(
            "send an Idempotency-Key, such as a fresh UUID", pointer="Idempotency-Key"
        )
    return found


def _plain_key(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 1 <= len(text) <= KEY_LENGTH or not text.isprintable():
        raise InvalidRequest(
            f"an Idempotency-Key has 1 to {KEY_LENGTH} printable characters", pointer="Idempotency-Key"
        )
    return text


def _canonical(body: bytes) -> bytes:
    """The same bytes for the same JSON; what is no JSON is refused by the route."""
    try:
        return json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return body


def _sorted_query(request: Request) -> str:
    return urlencode(
        sorted(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    )
