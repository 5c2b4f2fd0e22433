"""Believing a callback: who signed it, over which bytes, and when (Standard Webhooks, `v1`)."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from app.services.callbacks import signing

TOLERANCE = 300.0  # seconds


class BadSignature(Exception):
    """The message is not to be believed; says why."""


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> dict[str, Any]:
    """The event of a callback whose signature is that of the secret; raises `BadSignature`.

    `body` is what was received, byte for byte. A message older than `tolerance` seconds, or from the future,
    is refused, for whoever recorded it may send it again; within that time, remember the `webhook-id`.

    >>> event = verify_webhook(request.headers, request.body, "whsec_…")  # doctest: +SKIP
    >>> event["type"]  # doctest: +SKIP
    'forget.completed'
    """
    raw = body.encode() if isinstance(body, str) else body
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if name not in given]
    if missing:
        raise BadSignature(f"the message has no {missing[0]}")
    text = given["webhook-timestamp"]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadSignature("the time of the message is none")
    expected = signing.sign(given["webhook-id"], int(text), raw, signing.secret(secret)).encode()
    if not any(hmac.compare_digest(expected, one.encode()) for one in given["webhook-signature"].split()):
        raise BadSignature("the signature is not of this secret, message and time")
    if abs((time.time() if now is None else now) - int(text)) > tolerance:
        raise BadSignature("the message is too old, or from the future")
    return dict(json.loads(raw))
