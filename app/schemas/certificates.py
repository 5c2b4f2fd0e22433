"""Certificates on the wire. A certificate itself is answered byte for byte as it was signed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.ids import CertificateId, SigningKeyId
from app.schemas.base import Answer


class SigningKeyRead(Answer):
    """The public half of a key that signs certificates."""

    id: SigningKeyId
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str = Field(
        description="32 bytes, base64.", examples=["A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="]
    )
    created_at: datetime
    retired_at: datetime | None = Field(description="From then on it signs no more; what it signed is valid.")
    revoked_at: datetime | None = Field(description="Where set, nothing that it signed is to be trusted.")


class SigningKeyList(Answer):
    """Every key of this service."""

    items: list[SigningKeyRead]


class CertificateRead(Answer):
    """What a forget request came to, signed (`docs/certificates.md`)."""

    model_config = ConfigDict(extra="allow")

    format: Literal["palimpsest-certificate/1"]
    id: CertificateId
    issued_at: str
    software: dict[str, str]
    request: dict[str, Any]
    asked: dict[str, int]
    found: dict[str, int]
    claim: dict[str, str | None] = Field(description="Level E, C, A, A- or S, and what that level may say.")
    versions: list[dict[str, Any]]
    rebuilds: list[dict[str, Any]]
    stages: dict[str, dict[str, str | None]]
    ledger: dict[str, Any]
    audit: dict[str, Any]
    exceptions: list[dict[str, Any]]
    uncovered: list[str] = Field(description="What the erasure does not reach.")
    residuals: list[dict[str, str]] = Field(description="Copies that end by themselves, with the last day.")
    exports: list[dict[str, Any]] = Field(description="Copies that had left, and their recipients.")
    signed_by: dict[str, str]
    signature: str = Field(description="Ed25519 over the canonical text without this member, base64.")
