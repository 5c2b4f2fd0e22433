"""One verify job: each version that replaced the erased, made again from the stored rows and compared.

It leaves half of the cores to others, and gives way: where more urgent work waits it goes back into the
queue, and goes on with the next version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from uuid import UUID

import threadpoolctl
import torch
from sqlalchemy.orm import Session

from app.db import clock
from app.methods import BY_NAME
from app.methods.base import Progress
from app.service import Service
from app.services import jobs
from app.services.callers import audit
from app.services.certificates import rebuilds, verification
from app.services.jobs import ClaimedJob
from app.services.jobs.claims import runnable
from app.tables import Job, Version
from workers.progress import Reporter

ITERATIVE = ("svm", "softmax")  # solvers
EVERY = 0.25  # seconds between two looks for more urgent work


class GivesWay(Exception):
    """More urgent work waits."""


def run(service: Service, claimed: ClaimedJob, report: Reporter) -> None:
    """Rebuild one version after another; what came of each is committed before the next."""
    requests = [UUID(hex=id) for id in claimed.request[verification.REQUESTS]]
    with service.db.read() as session:
        waiting = verification.pending(session, requests)
    look = _lookout(service, claimed)
    equal = 0
    try:
        for done, (version_id, told) in enumerate(waiting.items()):
            tell = _teller(report, look, done, len(waiting))
            ctx = replace(rebuilds.context(service), on_progress=tell)
            with _threads(service, version_id):
                line = rebuilds.rebuild(service, version_id, ctx).line()
            equal += line["equal"]
            with service.db.begin() as session:
                jobs.guard(session, claimed)
                for request_id in verification.tell(session, told, version_id, line):
                    _record(session, claimed, request_id, version_id)
    except GivesWay:
        jobs.requeue(service, claimed, "more urgent work waits")
        return
    with service.db.begin() as session:
        jobs.finish(session, claimed, {"versions": len(waiting), "equal": equal})


def _threads(service: Service, version_id: UUID) -> AbstractContextManager[None]:
    """Half of the cores for what has the same bytes with any number of threads; where the last places depend
    on it, as many as when it was learned."""
    with service.db.read() as session:
        version = session.get_one(Version, version_id)
    return half_of_the_threads() if is_closed_form(version.method, version.params) else nullcontext()


def is_closed_form(method: str, params: Mapping[str, Any]) -> bool:
    """Whether a head is whole numbers and bounded solves: no network is trained, nothing iterates."""
    known = BY_NAME.get(method)
    return known is not None and not known.trains_network and params.get("solver") not in ITERATIVE


@contextmanager
def half_of_the_threads() -> Iterator[None]:
    """Leave half of what this process would compute with to others."""
    before = torch.get_num_threads()
    half = max(1, before // 2)
    torch.set_num_threads(half)
    try:
        with threadpoolctl.threadpool_limits(half, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _lookout(service: Service, claimed: ClaimedJob) -> Callable[[], None]:
    """Raises `GivesWay` where a job that is more urgent could start now."""
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        if time.monotonic() - looked < EVERY:
            return
        looked = time.monotonic()
        with service.db.read() as session:
            first = runnable(session, [claimed.queue], clock(session))[:1]
            if first and session.get_one(Job, first[0]).urgency < claimed.urgency:
                raise GivesWay

    return look


def _teller(
    report: Reporter, look: Callable[[], None], done: int, versions: int
) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        look()
        share = progress.done / progress.total if progress.total else 0.0
        report((done + min(share, 1.0)) / versions, "rebuilding")

    return tell


def _record(session: Session, claimed: ClaimedJob, request_id: UUID, version_id: UUID) -> None:
    audit.record(
        session,
        tenant_id=claimed.tenant_id,
        actor=f"job:{claimed.id.hex}",
        action="forget.verified",
        resources={"forget_request": request_id, "version": version_id, "job": claimed.id},
    )
