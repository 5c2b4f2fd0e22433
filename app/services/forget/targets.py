"""Whom a request names: digests in place of names from the first line on, and checks of what can be wrong."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import Fault, NotFound, ValidationFailed
from app.schemas.forget import AnyOf, ForgetCreate, RowsOf
from app.service import Service
from app.services.callers.access import digester, tenant_key
from app.services.erasure.ledger import class_target
from app.services.forget import due
from app.tables import Dataset, Model, ModelClass

Named = Sequence[Sequence[str]]  # for each entry of `targets` its targets, as the ledger writes them

KINDS = {"subject": "subject:", "samples": "sample:"}


def digested(service: Service, tenant_id: UUID, body: ForgetCreate) -> Named:
    """The targets of a request; raises `ValidationFailed` where an entry is not of its scope."""
    one = digester(service, tenant_id)
    entries = [body.targets] if isinstance(body.targets, AnyOf) else body.targets
    return [_entry(body.scope, entry, one, f"/targets/{i}") for i, entry in enumerate(entries)]


def fingerprint(service: Service, tenant_id: UUID, body: ForgetCreate, named: Named) -> str:
    """What tells another request under the same idempotency key: a digest over the digests."""
    asked = body.model_dump(mode="json", exclude={"targets"}) | {"targets": named}
    line = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    return hmac.digest(tenant_key(service, tenant_id), line, "sha256").hex()


def check(session: Session, tenant_id: UUID, body: ForgetCreate) -> None:
    """Raise where a dataset, position, class or model is not the tenant's, or a time cannot be."""
    due.check(body.submitted_at, body.due_at, clock(session))
    wanted = _models(session, tenant_id, body)
    if body.rows is not None:
        check_rows(session, tenant_id, body.rows)
    if isinstance(body.targets, AnyOf):
        return
    if body.scope == "class":
        _classes(session, tenant_id, body.targets, wanted)
    for i, entry in enumerate(body.targets):
        if isinstance(entry, RowsOf):
            _positions(session, tenant_id, entry, f"/targets/{i}")


def check_rows(session: Session, tenant_id: UUID, dataset_id: UUID) -> None:
    """Raise unless this is a dataset of rows that were sent again to be forgotten."""
    row = _dataset(session, tenant_id, dataset_id)
    if row is None or row.deleted_at is not None:
        raise NotFound("there is no such dataset", pointer="/rows")
    if not row.for_forget:
        raise ValidationFailed("rows are sent again in a dataset uploaded with for_forget", pointer="/rows")


def _entry(
    scope: str, entry: str | AnyOf | RowsOf, digest: Callable[[str], str], pointer: str
) -> Sequence[str]:
    if isinstance(entry, RowsOf):
        if scope != "samples":
            raise ValidationFailed("{dataset, positions} is a target of scope samples", pointer=pointer)
        return [f"row:{entry.dataset.hex}:{position}" for position in sorted(set(entry.positions))]
    texts = entry.any_of if isinstance(entry, AnyOf) else [entry]
    if scope == "class":
        if isinstance(entry, AnyOf):
            raise ValidationFailed("a target of scope class is the id of a class", pointer=pointer)
        return [class_target(_class_id(entry, pointer))]
    return sorted({KINDS[scope] + digest(text) for text in texts})


def _class_id(text: str, pointer: str) -> UUID:
    try:
        return ids.decode("cls", text)
    except ValueError:
        raise ValidationFailed(
            "a target of scope class is the id of a class, cls_…", pointer=pointer
        ) from None


def _models(session: Session, tenant_id: UUID, body: ForgetCreate) -> set[UUID] | None:
    if body.models is None:
        return None
    if len(set(body.models)) != len(body.models):
        raise ValidationFailed("a model is named twice", pointer="/models")
    there = set(
        session.scalars(
            select(Model.id).where(
                Model.tenant_id == tenant_id, Model.deleted_at.is_(None), Model.id.in_(body.models)
            )
        )
    )
    _refuse_missing("model", [(id in there, f"/models/{i}") for i, id in enumerate(body.models)])
    return there


def _classes(session: Session, tenant_id: UUID, targets: Sequence[object], models: set[UUID] | None) -> None:
    wanted = [ids.decode("cls", str(text)) for text in targets]
    found = {
        id: model_id
        for id, model_id in session.execute(
            select(ModelClass.id, ModelClass.model_id)
            .join(Model, Model.id == ModelClass.model_id)
            .where(ModelClass.tenant_id == tenant_id, ModelClass.id.in_(wanted), Model.deleted_at.is_(None))
        )
    }
    _refuse_missing("class", [(id in found, f"/targets/{i}") for i, id in enumerate(wanted)])
    for i, id in enumerate(wanted):
        if models is not None and found[id] not in models:
            raise ValidationFailed("the class is of none of these models", pointer=f"/targets/{i}")


def _positions(session: Session, tenant_id: UUID, entry: RowsOf, pointer: str) -> None:
    row = _dataset(session, tenant_id, entry.dataset)
    if row is None:
        raise NotFound("there is no such dataset", pointer=f"{pointer}/dataset")
    beyond = max(entry.positions)
    if beyond >= row.rows:
        raise ValidationFailed(
            f"the dataset has positions 0 to {row.rows - 1}", pointer=f"{pointer}/positions"
        )


def _dataset(session: Session, tenant_id: UUID, dataset_id: UUID) -> Dataset | None:
    row = session.get(Dataset, dataset_id)
    return None if row is None or row.tenant_id != tenant_id or row.arriving else row


def _refuse_missing(what: str, found: Sequence[tuple[bool, str]]) -> None:
    faults = [
        Fault(pointer, "not-found", f"there is no such {what}") for there, pointer in found if not there
    ]
    if faults:
        raise NotFound(f"there is no such {what}", errors=faults)
