"""API keys of the caller's tenant."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app import ids
from app.api.deps import Admin, MaybeOnceDep, ServiceDep
from app.api.paging import PageOf, PagingDep
from app.api.problems import problems
from app.errors import IdempotencyMismatch, NotFound, ValidationFailed
from app.ids import KeyId
from app.schemas.keys import KeyCreate, KeyCreated, KeyRead
from app.services.callers import access

router = APIRouter(prefix="/api-keys", tags=["api keys"])


@router.post(
    "",
    status_code=201,
    operation_id="api_keys_create",
    responses=problems(ValidationFailed, IdempotencyMismatch),
)
def create(
    body: KeyCreate, caller: Admin, service: ServiceDep, once: MaybeOnceDep, response: Response
) -> KeyCreated:
    """Make an API key. Its token is shown now and never again."""
    issued = access.create_key(
        service, caller, name=body.name, scopes=body.scopes, expires_in=body.expires_in_seconds, once=once
    )
    response.headers["Location"] = f"/v1/api-keys/{ids.encode('key', issued.row.id)}"
    return KeyCreated(**KeyRead.model_validate(issued.row).model_dump(), token=issued.token)


@router.get("", operation_id="api_keys_list", responses=problems())
def browse(caller: Admin, service: ServiceDep, paging: PagingDep, response: Response) -> PageOf[KeyRead]:
    """The API keys of this tenant, ended ones included."""
    found = access.keys_of(service, caller.tenant_id, paging.place())
    return paging.answer(found, KeyRead.model_validate, response)


@router.delete("/{key}", status_code=204, operation_id="api_keys_delete", responses=problems(NotFound))
def revoke(key: KeyId, caller: Admin, service: ServiceDep) -> None:
    """End an API key at once."""
    access.revoke_key(service, caller, key)
