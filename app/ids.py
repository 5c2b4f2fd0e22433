"""Ids: UUIDv7 in the database (sorted by time), `prefix_` and Crockford base32 at the edge."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26  # 130 bits hold the 128 of a UUID
VALUES = {character: value for value, character in enumerate(ALPHABET)}


def new() -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, 74 random ones."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def encode(prefix: str, value: UUID) -> str:
    """`mdl_01j9…`: what a client sees of an id."""
    number = value.int
    return prefix + "_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def decode(prefix: str, text: str) -> UUID:
    """The id in `text`; raises `ValueError` where it is not one of this prefix."""
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != LENGTH or any(c not in VALUES for c in tail):
        raise ValueError(f"not an id of the form {prefix}_ and {LENGTH} characters")
    number = 0
    for character in tail:
        number = number << 5 | VALUES[character]
    if number >> 128:
        raise ValueError("not an id: too large")
    return UUID(int=number)


def forget_path(request_id: UUID) -> str:
    """The URL of a forget request: problems name it as the evidence, in layers that know no routes."""
    return f"/v1/forget-requests/{encode('fgt', request_id)}"


def _wire(prefix: str) -> Any:
    """The pydantic type of an id with this prefix: a UUID inside, text outside."""
    return Annotated[
        UUID,
        BeforeValidator(lambda v: decode(prefix, v) if isinstance(v, str) else v),
        PlainSerializer(lambda v: encode(prefix, v), return_type=str),
        WithJsonSchema({"type": "string", "pattern": f"^{prefix}_[{ALPHABET}]{{{LENGTH}}}$"}),
    ]


ModelId = _wire("mdl")
VersionId = _wire("ver")
ClassId = _wire("cls")
DatasetId = _wire("dst")
JobId = _wire("job")
UploadId = _wire("upl")
ExportId = _wire("exp")
KeyId = _wire("key")
RequestId = _wire("req")
ForgetId = _wire("fgt")
EventId = _wire("evt")
CertificateId = _wire("crt")
SigningKeyId = _wire("sgk")
DeliveryId = _wire("dlv")
