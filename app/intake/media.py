"""Formats: `Content-Type` names one, the first bytes must agree, and what can carry code is refused."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from app.errors import UnsafeFormat, UnsupportedMedia

HEAD = 512  # bytes that `check` wants to see


class Format(StrEnum):
    """What rows may be sent as."""

    NPZ = "npz"
    NPY = "npy"
    SAFETENSORS = "safetensors"
    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"
    JSON = "json"
    IMAGES = "images"


MEDIA: Final = {
    "application/x-npz": Format.NPZ,
    "application/x-npy": Format.NPY,
    "application/x-safetensors": Format.SAFETENSORS,
    "application/vnd.apache.parquet": Format.PARQUET,
    "text/csv": Format.CSV,
    "application/x-ndjson": Format.JSONL,
    "application/jsonl": Format.JSONL,
    "application/json": Format.JSON,
    "application/zip": Format.IMAGES,
}

KINDS: Final = {
    Format.NPZ: "zip",
    Format.NPY: "npy",
    Format.SAFETENSORS: "safetensors",
    Format.PARQUET: "parquet",
    Format.CSV: "text",
    Format.JSONL: "text",
    Format.JSON: "text",
    Format.IMAGES: "zip",
}
PREFIXES: Final = (
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PAR1", "parquet"),
)
TEXT: Final = frozenset(range(0x20, 0x100)) - {0x7F} | {0x09, 0x0A, 0x0D}


def check(content_type: str, head: bytes) -> Format:
    """The format that `Content-Type` names; `head` is the first 512 bytes of the body, or all of it.

    Raises `UnsafeFormat` for a pickle and for bytes that are no known format, whatever was declared, and
    `UnsupportedMedia` for a known format under another name.
    """
    found = sniff(head)
    if found == "unknown":
        raise UnsafeFormat("the first bytes are of no format that is accepted; pickles never are")
    declared, _, parameters = content_type.partition(";")
    format = MEDIA.get(declared.strip().lower())
    if format is None:
        raise UnsupportedMedia(f"Content-Type has to be one of {', '.join(MEDIA)}", pointer="Content-Type")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if KINDS[format] == "text" and parameters and charset not in ("utf-8", "utf8"):
        raise UnsupportedMedia("text has to be UTF-8", pointer="Content-Type")
    if head and found != KINDS[format]:
        raise UnsupportedMedia(f"Content-Type says {format}, the bytes are {found}", pointer="Content-Type")
    return format


def sniff(head: bytes) -> str:
    """What the first bytes are: npy, zip, parquet, safetensors, text or unknown."""
    for prefix, kind in PREFIXES:
        if head.startswith(prefix):
            return kind
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 27:
        return "safetensors"
    return "text" if all(byte in TEXT for byte in head) else "unknown"
