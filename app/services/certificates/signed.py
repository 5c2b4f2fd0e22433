"""A signed text: canonical JSON that names its key, and the signature over all the rest."""

from __future__ import annotations

from typing import Any

from app import ids
from app.proof.canonical import canonical
from app.service import Service
from app.services.certificates import keys
from app.tables import SigningKey

SIGNATURE, SIGNED_BY = "signature", "signed_by"


def seal(service: Service, key: SigningKey, content: dict[str, Any]) -> bytes:
    """The text with its signature: of the canonical text without the member `signature`."""
    named = {**content, SIGNED_BY: {"algorithm": "Ed25519", "key": ids.encode("sgk", key.id)}}
    return canonical({**named, SIGNATURE: keys.sign(service, key, canonical(named))})
