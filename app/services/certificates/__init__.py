"""Certificates: what was done for a forget request, in canonical JSON, signed so that anybody can check it.

`gathered` reads what they are made from, `build` makes the content, `signed` gives it one text and `keys` a
signature, `page` shows it to people; `app.proof` checks it without the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.service import Service
from app.services.callers import audit
from app.services.certificates import build, keys
from app.services.certificates.gathered import Gathered, gather
from app.services.certificates.signed import Signer
from app.services.erasure.parts import parts
from app.tables import Certificate, ForgetRequest


def issue(service: Service, session: Session, request: ForgetRequest) -> Certificate:
    """The certificate of one request; see `issue_all`."""
    return issue_all(service, session, [request])[0]


def issue_all(service: Service, session: Session, requests: Sequence[ForgetRequest]) -> list[Certificate]:
    """The certificate of each request, made and signed in the caller's transaction; one that is there stays.

    Call it when everything they are about is done: stages finished, items final, the erased destroyed. What
    the requests share is read once, so many at a time cost little more than one.
    """
    session.flush()
    found: dict[UUID, Certificate] = {}
    for part in parts([request.id for request in requests]):
        query = select(Certificate).where(Certificate.request_id.in_(part))
        found |= {row.request_id: row for row in session.scalars(query)}
    missing = [request for request in requests if request.id not in found]
    if missing:
        gathered = gather(service, session, missing)
        signers = {
            id: Signer.of(service, keys.ensure(service, session, id))
            for id in sorted({request.tenant_id for request in missing})
        }
        for request in missing:
            found[request.id] = _add(gathered, signers[request.tenant_id], request)
        session.flush()
    return [found[request.id] for request in requests]


def _add(gathered: Gathered, signer: Signer, request: ForgetRequest) -> Certificate:
    id = ids.new()
    row = Certificate(
        id=id,
        created_at=gathered.now,
        tenant_id=request.tenant_id,
        request_id=request.id,
        signing_key_id=signer.key_id,
        body=signer.seal(build.content(gathered, request.id, id)).decode(),
    )
    gathered.session.add(row)
    audit.record(
        gathered.session,
        tenant_id=request.tenant_id,
        actor="service",
        action="certificate.issued",
        resources={"forget_request": request.id, "certificate": id, "signing_key": signer.key_id},
    )
    return row
