"""A signed text: canonical JSON that names its key, and the signature over all the rest."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app import ids
from app.proof.canonical import canonical
from app.service import Service
from app.services.certificates import keys
from app.tables import SigningKey

SIGNATURE, SIGNED_BY = "signature", "signed_by"


@dataclass(frozen=True)
class Signer:
    """The private half of a key, read once for all that it signs now."""

    key_id: UUID
    _secret: Ed25519PrivateKey

    @classmethod
    def of(cls, service: Service, key: SigningKey) -> Signer:
        """What signs with a key that is not ended."""
        return cls(key.id, keys.secret(service, key))

    def seal(self, content: dict[str, Any]) -> bytes:
        """The text with its signature: of the canonical text without the member `signature`."""
        named = {**content, SIGNED_BY: {"algorithm": "Ed25519", "key": ids.encode("sgk", self.key_id)}}
        signature = base64.b64encode(self._secret.sign(canonical(named))).decode()
        return canonical({**named, SIGNATURE: signature})
