"""What goes over the wire to and from the service: problems, events, formats of files."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

FORMATS = {
    ".npz": "application/x-npz",
    ".npy": "application/x-npy",
    ".safetensors": "application/x-safetensors",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".zip": "application/zip",
}


class Unreachable(Exception):
    """Nothing answers at the address."""


class Problem(Exception):
    """The service refused; the fields are those of its problem document."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(document.get("code", "unknown"))
        self.detail = str(document.get("detail") or document.get("title") or f"status {status}")
        self.errors: list[Json] = list(document.get("errors", ()))
        self.related: list[str] = list(document.get("related", ()))
        self.request_id = document.get("request_id")
        super().__init__(f"{self.code}: {self.detail}")


@dataclass(frozen=True)
class Event:
    """One server-sent event of a job."""

    sequence: str
    name: str  # state, progress, log, done
    data: Json


def media_type(path: Path) -> str:
    """The content type that names a file's format."""
    return (
        FORMATS.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    )


def pause(attempt: int, retry_after: str | None) -> float:
    """Seconds until the next try: what the service asked for, else 0.1 s doubled with every try."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), 30.0)
    return min(0.1 * 2.0**attempt, 5.0)


def document(answer: httpx.Response) -> Json:
    try:
        document = answer.json()
    except json.JSONDecodeError:
        return {"detail": answer.reason_phrase}
    return document if isinstance(document, dict) else {"detail": str(document)}
