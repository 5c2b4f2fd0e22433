"""A zip of images in one folder per class; all of one size. Grey images stay grey if all are."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from app.errors import BodyTooLarge, DimensionMismatch, UnsafeFormat, ValidationFailed
from app.intake.archive import members, opened
from app.intake.rows import Chunk, Source, block_rows, check_count, cut_off

KINDS = ("PNG", "JPEG", "BMP", "WEBP")
MODES = {
    "1": "L",
    "L": "L",
    "P": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
    "LA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
IGNORED = ("__MACOSX/",)  # what file managers add
IGNORED_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini")


def read(source: Source) -> Iterator[Chunk]:
    """Chunks of images (rows, height, width) or (rows, height, width, 3), uint8, in the archive's order."""
    try:
        with opened(source) as archive:
            infos = members(archive, source)
            folders = _folders(archive)
            infos = [info for info in infos if not _is_ignored(info)]
            labels = [_label(info, row) for row, info in enumerate(infos)]
            yield from _read(archive, infos, labels, tuple(folders), source)
    except (BadZipFile, EOFError, zlib.error, NotImplementedError):
        raise cut_off("the archive") from None


def _read(
    archive: ZipFile, infos: list[ZipInfo], labels: list[str], folders: tuple[str, ...], source: Source
) -> Iterator[Chunk]:
    check_count(len(infos), source.limits)
    if not infos:
        return
    size, mode = _form(archive, infos, source)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    step = block_rows(shape, 1, source.limits)
    for first in range(0, len(infos), step):
        block = infos[first : first + step]
        x = np.empty((len(block), *shape), dtype=np.uint8)
        for at, info in enumerate(block):
            x[at] = _pixels(archive, info, mode, first + at)
        yield Chunk(
            positions=np.arange(first, first + len(block)),
            x=x,
            label=labels[first : first + step],
            declared=folders,
        )


def _form(archive: ZipFile, infos: list[ZipInfo], source: Source) -> tuple[tuple[int, int], str]:
    """Size and mode of all images, from their headers alone: no pixel is unpacked."""
    most = source.limits.features * 16
    common: tuple[int, int] | None = None
    modes: set[str] = set()
    for row, info in enumerate(infos):
        with archive.open(info) as stream, _open(stream, row) as image:
            size = image.size
            if size[0] * size[1] * 3 > most:
                raise BodyTooLarge(f"image {row} has {size[0]} x {size[1]} pixels", pointer=f"/x/{row}")
            if getattr(image, "n_frames", 1) != 1:
                raise ValidationFailed(f"image {row} has several frames", pointer=f"/x/{row}")
            if image.mode not in MODES:
                raise ValidationFailed(f"image {row} has mode {image.mode}", pointer=f"/x/{row}")
            modes.add(MODES[image.mode])
        common = common or size
        if size != common:
            raise DimensionMismatch(
                f"image {row} has {size[0]} x {size[1]} pixels, the first has {common[0]} x {common[1]}",
                pointer=f"/x/{row}",
            )
    assert common is not None
    return common, "L" if modes == {"L"} else "RGB"


def _open(stream: IO[bytes], row: int) -> Image.Image:
    try:
        return Image.open(stream, formats=KINDS)
    except UnidentifiedImageError:
        raise UnsafeFormat(
            f"member {row} is no image of kind {', '.join(KINDS)}", pointer=f"/x/{row}"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BodyTooLarge(f"image {row} has too many pixels", pointer=f"/x/{row}") from None
    except (OSError, ValueError, SyntaxError):
        raise cut_off(f"image {row}", f"/x/{row}") from None


def _pixels(archive: ZipFile, info: ZipInfo, mode: str, row: int) -> NDArray[Any]:
    with archive.open(info) as stream, _open(stream, row) as image:
        try:
            return np.asarray(image.convert(mode), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError):
            raise cut_off(f"image {row}", f"/x/{row}") from None


def _label(info: ZipInfo, row: int) -> str:
    parts = info.filename.split("/")
    if len(parts) != 2 or not parts[0]:
        raise ValidationFailed(
            f"member {row} does not lie in a folder of its class, as in cats/1.png", pointer=f"/label/{row}"
        )
    return parts[0]


def _folders(archive: ZipFile) -> list[str]:
    """Folders that the archive lists, with or without images."""
    names = [info.filename.split("/")[0] for info in archive.infolist() if info.is_dir()]
    return [name for name in dict.fromkeys(names) if not f"{name}/".startswith(IGNORED)]


def _is_ignored(info: ZipInfo) -> bool:
    return info.filename.startswith(IGNORED) or info.filename.rsplit("/", 1)[-1] in IGNORED_NAMES
