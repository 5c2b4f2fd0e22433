"""Certificates of forget requests, and the keys that they are checked with."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from app.api.deps import Allowed, ServiceDep
from app.api.etags import Rendered, answer, body_tag
from app.api.problems import problems
from app.errors import NotFound
from app.ids import ForgetId
from app.schemas.certificates import CertificateRead, SigningKeyList, SigningKeyRead
from app.service import Caller
from app.services.certificates import keys, page, reads

router = APIRouter(tags=["certificates"])
Party = Annotated[Caller, Depends(Allowed("forget:create", "forget:approve"))]

HTML = "text/html"
LOCKED = "default-src 'none'; style-src 'unsafe-inline'"


@router.get(
    "/forget-requests/{forget_request}/certificate",
    operation_id="forget_requests_certificate",
    response_model=CertificateRead,
    responses={200: {"content": {HTML: {"schema": {"type": "string"}}}}, **problems(NotFound)},
)
def read(
    forget_request: ForgetId,
    request: Request,
    caller: Party,
    service: ServiceDep,
    accept: Annotated[str | None, Header(description=f"`{HTML}` for a page to print.")] = None,
) -> Response:
    """What a completed request came to: canonical JSON, byte for byte as it was signed, or a page."""
    found = reads.of_request(service, caller, forget_request)
    if not _wants_page(accept):
        body = found.body.encode()
        return answer(request, Rendered(body, body_tag(body)), headers={"Vary": "Accept"})
    body = page.render(json.loads(found.body)).encode()
    headers = {"Vary": "Accept", "Content-Security-Policy": LOCKED}
    return answer(request, Rendered(body, body_tag(body), HTML), headers=headers)


@router.get("/certificate-keys", operation_id="certificate_keys_list", responses=problems())
def browse(service: ServiceDep) -> SigningKeyList:
    """The public halves of the keys that sign certificates, ended ones included. Needs no API key."""
    return SigningKeyList(items=[SigningKeyRead.model_validate(row) for row in keys.every(service)])


def _wants_page(accept: str | None) -> bool:
    """Whether HTML is named before JSON."""
    wanted = (accept or "").lower()
    at, json_at = wanted.find(HTML), wanted.find("application/json")
    return at >= 0 and (json_at < 0 or at < json_at)
