"""What clients send, parsed: one file per format, each a stream of chunks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.intake import csv, images, json, jsonl, npy, npz, parquet, safetensors
from app.intake.media import Format
from app.intake.rows import Chunk, Source

PARSERS: dict[Format, Callable[[Source], Iterator[Chunk]]] = {
    Format.NPZ: npz.read,
    Format.NPY: npy.read,
    Format.SAFETENSORS: safetensors.read,
    Format.PARQUET: parquet.read,
    Format.CSV: csv.read,
    Format.JSONL: jsonl.read,
    Format.JSON: json.read,
    Format.IMAGES: images.read,
}


def parse(format: Format, source: Source) -> Iterator[Chunk]:
    """The rows of an upload, in order, some thousand at a time."""
    return PARSERS[format](source)
