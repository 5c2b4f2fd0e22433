"""Checking a signed text against published keys: no service, no database, only these bytes.

Ed25519 (RFC 8032) over canonical JSON (RFC 8785). A text has one form and a signature one spelling, so a byte
changed anywhere is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.proof.canonical import NotCanonical, canonical, parse

RAW = 32  # bytes of a public key


class Refused(ValueError):
    """The text is not one that the key signed, or the key is not one to trust; says why."""


class NoKey(ValueError):
    """What was given as keys holds none."""


@dataclass(frozen=True)
class PublicKey:
    """A public half, with what is published of it; a bare key has no id."""

    raw: bytes  # 32 bytes
    id: str | None = None
    revoked_at: str | None = None


def check(raw: bytes, keys: Sequence[PublicKey]) -> dict[str, Any]:
    """The content of a signed text; raises `Refused`."""
    try:
        content = parse(raw)
    except NotCanonical as error:
        raise Refused(f"{error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("signature"), str):
        raise Refused("this is no signed text")
    signature, signer = _decoded(content["signature"]), _signer(content)
    named = [key for key in keys if key.id == signer] or [key for key in keys if key.id is None]
    if not named:
        raise Refused(f"none of the keys is {signer}, which signed this")
    message = canonical({name: value for name, value in content.items() if name != "signature"})
    trusted = [key for key in named if _fits(key, signature, message)]
    if not trusted:
        raise Refused(
            "the signature is not of this text by this key: the text was altered, or the key is another's"
        )
    if revoked := next((key for key in trusted if key.revoked_at), None):
        raise Refused(f"the key {signer} was revoked at {revoked.revoked_at}")
    return content


def read_keys(raw: bytes) -> list[PublicKey]:
    """Keys from the JSON of `GET /v1/certificate-keys` (the list or one item), PEM, or 32 bytes in base64.

    Raises `NoKey`.
    """
    if raw.lstrip().startswith(b"-----BEGIN"):
        return [_from_pem(raw)]
    try:
        value = json.loads(raw)
    except ValueError:
        return [PublicKey(_public(raw.decode("ascii", "replace").strip()))]
    listed = value.get("items", [value]) if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed) or not listed:
        raise NoKey("this is no list of published keys")
    return [_published(one) for one in listed]


def _fits(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _signer(content: Mapping[str, Any]) -> str:
    signed_by = content.get("signed_by")
    found = signed_by.get("key") if isinstance(signed_by, dict) else None
    if not isinstance(found, str):
        raise Refused("this does not say which key signed it")
    return found


def _decoded(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refused("the signature is no base64") from None
    if base64.b64encode(found).decode() != text:
        raise Refused("the signature is spelled another way than it was written")
    return found


def _from_pem(raw: bytes) -> PublicKey:
    try:
        key = load_pem_public_key(raw)
    except ValueError:
        raise NoKey("this PEM holds no public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise NoKey("this is no Ed25519 key")
    return PublicKey(key.public_bytes_raw())


def _published(one: Mapping[str, Any]) -> PublicKey:
    return PublicKey(_public(str(one.get("public_key", ""))), one.get("id"), one.get("revoked_at"))


def _public(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != RAW:
        raise NoKey("a public key is 32 bytes in base64, PEM, or the JSON of GET /v1/certificate-keys")
    return raw
