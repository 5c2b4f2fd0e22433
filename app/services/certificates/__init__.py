"""Certificates: what was done for a forget request, in canonical JSON, signed so that anybody can check it.

`build` gathers the content, `signed` gives it one text and `keys` a signature, `page` shows it to people;
`app.proof` checks it without the service.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.service import Service
from app.services.callers import audit
from app.services.certificates import build, keys
from app.services.certificates.signed import seal
from app.tables import Certificate, ForgetRequest


def issue(service: Service, session: Session, request: ForgetRequest) -> Certificate:
    """The certificate of a request, made and signed in the caller's transaction; one that is there stays.

    Call it when everything it is about is done: stages finished, items final, the erased destroyed.
    """
    found = session.scalar(select(Certificate).filter_by(request_id=request.id))
    if found is not None:
        return found
    session.flush()
    tenant_id = request.tenant_id
    key = build.kept(session, tenant_id, lambda session: keys.ensure(service, session, tenant_id))
    id = ids.new()
    body = seal(service, key, build.content(service, session, request, id))
    row = Certificate(
        id=id,
        created_at=clock(session),
        tenant_id=request.tenant_id,
        request_id=request.id,
        signing_key_id=key.id,
        body=body.decode(),
    )
    session.add(row)
    audit.record(
        session,
        tenant_id=request.tenant_id,
        actor="service",
        action="certificate.issued",
        resources={"forget_request": request.id, "certificate": id, "signing_key": key.id},
    )
    session.flush()
    return row
