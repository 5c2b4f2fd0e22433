"""What an erasure does not reach, said before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.schemas.forget import ForgetCreate
from app.schemas.forget_preview import Uncovered
from app.service import Service
from app.services.erasure.ledger import Positions
from app.services.forget import closure
from app.services.forget.closure import Closure
from app.tables import ForgetItem, ForgetRequest, Model

OPEN = ("received", "awaiting-approval", "locating")


def uncovered(
    service: Service, session: Session, body: ForgetCreate, found: Closure, shared: Positions
) -> list[Uncovered]:
    """Everything that stays, in sentences, each with a code."""
    return [
        Uncovered(code=code, detail=detail) for code, detail in _found(service, session, body, found, shared)
    ]


def _found(
    service: Service, session: Session, body: ForgetCreate, found: Closure, shared: Positions
) -> Iterator[tuple[str, str]]:
    if body.scope == "subject":
        unnamed = sum(closure.without_subject(session, one.dataset) for one in found.datasets)
        yield (
            "rows-without-subject",
            f"Rows that name nobody cannot be found by a person: {unnamed} in the datasets above.",
        )
    left = sum(map(len, shared.values()))
    if left and body.shared_rows == "report":
        yield "shared-rows", f"{_rows(left, 'names', 'name')} other persons too: not erased."
    if body.models is not None:
        yield "other-models", "Only the models that were named forget; stored rows and other models stay."
    if missing := sum(one.rows for one in found.datasets if one.dataset.deleted_at is not None):
        yield (
            "rows-not-retained",
            f"{_rows(missing, 'is', 'are')} not stored any more. Where a version cannot be cleaned without "
            "them, the request waits as failed until they are sent again (`rows`), or until a retry lets "
            "such versions go (`withdraw`).",
        )
    if found.versions:
        yield from _of_models(session, list(found.versions))
    if sum(map(len, found.rows.values())) == 1 and not _others_wait(session, list(found.versions)):
        yield (
            "one-row-batch",
            "Two consecutive heads differ in the direction of the one row that goes: who has both sees it. "
            "A window in which requests are joined (`batch_window_seconds`) hides it among others.",
        )
    if found.exports:
        count = len(found.exports)
        yield (
            "exports",
            f"{count} copies left before; their recipients are listed and have to act themselves.",
        )
    yield (
        "external-copies",
        "What others copied without the service's knowledge, or sent it from, stays there.",
    )
    if body.scope != "class":
        yield (
            "ledger",
            "Keyed digests of what is named stay in the ledger, so that it is refused when it comes again.",
        )
    yield from _copies(service, session)


def _of_models(session: Session, models: list[UUID]) -> Iterator[tuple[str, str]]:
    given = session.scalars(
        select(Model.name).where(Model.id.in_(models), Model.weights_id.is_not(None)).order_by(Model.name)
    ).all()
    if given:
        yield (
            "extractor-provenance",
            "Networks whose weights were uploaded may have seen the person; what they were trained on is not "
            f"known here: {', '.join(given)}.",
        )
    vectors = session.scalars(select(Model.network).where(Model.id.in_(models)))
    if any(network["name"] == "identity" for network in vectors):
        yield (
            "encoder-outside",
            "Vectors were made outside: the encoder that made them is not part of the erasure.",
        )


def _rows(count: int, one: str, many: str) -> str:
    """`1 row is`, `2 rows are`."""
    return f"1 row {one}" if count == 1 else f"{count} rows {many}"


def _others_wait(session: Session, models: list[UUID]) -> bool:
    """Whether another request waits for one of these models, and would be joined into the same job."""
    query = (
        select(func.count())
        .select_from(ForgetItem)
        .join(ForgetRequest, ForgetRequest.id == ForgetItem.request_id)
        .where(ForgetItem.kind == "model", ForgetItem.resource_id.in_(models), ForgetRequest.state.in_(OPEN))
    )
    return bool(session.scalar(query))


def _copies(service: Service, session: Session) -> Iterator[tuple[str, str]]:
    backups = service.settings.backups
    if backups.keep_days:
        yield (
            "backups",
            f"Backups from before the purge keep older rows of the database for {backups.keep_days} days and "
            "files whose keys are destroyed.",
        )
    if session.get_bind().dialect.name == "postgresql":
        yield (
            "write-ahead-log",
            "PostgreSQL keeps deleted rows (ids, keyed digests, ciphertext without keys) as dead tuples and "
            f"in its write-ahead log until they are recycled: up to {backups.wal_days} days.",
        )
