"""Persons in datasets, and requests to forget them, without HTTP and without a worker."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from app import ids
from app.ledger_objects import LedgerObjects
from app.schemas.forget import ForgetCreate
from app.service import Caller, open_service
from app.services.callers.access import digest
from app.services.callers.idempotency import Once
from app.services.forget import reads, submit
from app.tables import ForgetRequest, Sample, SampleSubject
from tests.services.learning import a_dataset


def a_dataset_of(service, tenant_id, labels, subjects, samples=None, **changes):
    """A dataset whose rows name these persons (a list for each row)."""
    data = a_dataset(service, tenant_id, labels, **changes)
    with service.db.begin() as session:
        for position in range(len(subjects)):
            sample = samples[position] if samples else None
            session.add(
                Sample(
                    dataset_id=data.id,
                    position=position,
                    tenant_id=tenant_id,
                    sample_digest=sample and digest(service, tenant_id, sample),
                )
            )
        session.flush()
        for position, persons in enumerate(subjects):
            for person in persons:
                session.add(
                    SampleSubject(
                        dataset_id=data.id,
                        position=position,
                        tenant_id=tenant_id,
                        subject_digest=digest(service, tenant_id, person),
                    )
                )
    return data


def key(tenant_id, *scopes):
    return Caller(tenant_id=tenant_id, key_id=ids.new(), scopes=frozenset(scopes), request_id="req_test")


def ask(service, caller, targets, scope="subject", *, idempotency_key=None, **fields):
    """POST a request; the request as it is then."""
    answer = post(service, caller, targets, scope, idempotency_key=idempotency_key, **fields)
    with service.db.read() as session:
        return reads.read(session, session.get_one(ForgetRequest, answer.id))


def post(service, caller, targets, scope="subject", *, idempotency_key=None, **fields):
    """POST a request; what it answers."""
    body = ForgetCreate.model_validate({"scope": scope, "targets": targets, **fields})
    once = Once(caller.tenant_id, "POST /v1/forget-requests", idempotency_key or ids.new().hex)
    return submit.submit(service, caller, body, once)


def now(service, caller, request):
    """A request as it is now."""
    return reads.look(service, caller, request.id)


def row(service, request_id):
    with service.db.read() as session:
        return session.get_one(ForgetRequest, request_id)


class LastWords(LedgerObjects):
    """A ledger whose process is killed once an object is written."""

    def put(self, request_id, kind, body):
        super().put(request_id, kind, body)
        os.kill(os.getpid(), signal.SIGKILL)


def killed_after_the_object(service, work):
    """Run `work(service)` in a process that is killed between the ledger's object and the commit."""
    child = os.fork()
    if child == 0:
        mine = open_service(service.settings)
        try:
            work(replace(mine, ledger=LastWords(service.settings.ledger_dir)))
        finally:
            os._exit(1)  # it was to be killed before
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
