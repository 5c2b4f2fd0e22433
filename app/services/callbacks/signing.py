"""Signatures of callbacks, as Standard Webhooks writes them (standardwebhooks.com, `v1`: HMAC-SHA256)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from typing import Any

PREFIX = "whsec_"
LEAST, MOST = 24, 64  # bytes of a secret


def secret(text: str) -> bytes:
    """The bytes of `whsec_` and base64; raises `ValueError`."""
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raw = b""
    if not text.startswith(PREFIX) or not LEAST <= len(raw) <= MOST:
        raise ValueError(f"a secret is {PREFIX} and {LEAST} to {MOST} random bytes in base64")
    return raw


def body_of(payload: Mapping[str, Any]) -> bytes:
    """The bytes that are sent and signed."""
    return json.dumps(payload, separators=(",", ":"), sort_keys=True).encode()


def headers(id: str, timestamp: int, body: bytes, key: bytes) -> dict[str, str]:
    """The headers of one attempt; the id is that of the message, the time that of the attempt."""
    return {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(id, timestamp, body, key),
    }


def sign(id: str, timestamp: int, body: bytes, key: bytes) -> str:
    """`v1,` and the HMAC over id, time and body, in base64."""
    mac = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(mac).decode()}"
