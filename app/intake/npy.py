"""`.npy`: `x` alone. Its rows are read where they lie; nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from app.errors import DimensionMismatch
from app.intake.arrays import header, numbers
from app.intake.rows import Chunk, Source, block_rows, check_count, cut_off, stored_size


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of a `.npy` file of shape (rows, ...)."""
    source.file.seek(0)
    head = header(source.file, "x")
    if not head.shape or len(head.shape) < 2:
        raise DimensionMismatch("x has rows first, then one to three dimensions", pointer="/x")
    if head.bytes != source.bytes:
        raise cut_off("the file")
    check_count(head.shape[0], source.limits)
    size = block_rows(head.shape[1:], stored_size(head.dtype, len(head.shape)), source.limits)
    if head.shape[0] == 0:
        return
    x = numbers(
        np.memmap(
            source.file,
            dtype=head.dtype,
            mode="r",
            offset=head.length,
            shape=head.shape,
            order="F" if head.fortran else "C",
        ),
        "x",
    )
    for first in range(0, len(x), size):
        block = x[first : first + size]
        yield Chunk(positions=np.arange(first, first + len(block)), x=block)
