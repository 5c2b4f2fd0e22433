"""The callback that came with a request: looked at before anything is stored, its secret kept as a key."""

from __future__ import annotations

from uuid import UUID

from app import ids
from app.errors import ValidationFailed
from app.schemas.forget import Callback
from app.service import Service
from app.services.callbacks import addresses, signing
from app.vault import KeyObject


def checked(service: Service, given: Callback | None) -> bytes | None:
    """The bytes of its secret; raises `ValidationFailed` where the address or the secret will not do.

    It asks the name service, so no transaction is open.
    """
    if given is None:
        return None
    try:
        secret = signing.secret(given.secret)
    except ValueError as error:
        raise ValidationFailed(str(error), pointer="/callback/secret") from None
    addresses.check(given.url, addresses.networks(service.settings.callbacks.allowed_networks))
    return secret


def keep(service: Service, secret: bytes | None) -> UUID | None:
    """The id of the key object that holds the secret from now on. One whose request is never committed is an
    orphan, and removed as such."""
    if secret is None:
        return None
    key_id = ids.new()
    service.vault.write_key(key_id, KeyObject(key=secret))
    return key_id
