"""Small grey images in the terminal: half blocks, two rows of pixels in one line of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

GLYPHS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def lines(image: NDArray[np.uint8], coloured: bool) -> list[Text]:
    """An image (height, width), 0 black to 255 white, as height / 2 lines.

    On a terminal every character carries two greys; in a file or a pipe it says which half is bright.
    """
    height, width = image.shape
    padded = np.vstack([image, np.zeros((height % 2, width), np.uint8)])
    return [_line(padded[y], padded[y + 1], coloured) for y in range(0, len(padded), 2)]


def _line(upper: NDArray[np.uint8], lower: NDArray[np.uint8], coloured: bool) -> Text:
    text = Text()
    for up, low in zip(upper.tolist(), lower.tolist(), strict=True):
        if coloured:
            text.append("▀", Style(color=Color.from_rgb(up, up, up), bgcolor=Color.from_rgb(low, low, low)))
        else:
            text.append(GLYPHS[up > 127, low > 127])
    return text


def row(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str], coloured: bool, gap: int = 4
) -> list[Text]:
    """Images beside each other, a caption under each."""
    drawn = [lines(image, coloured) for image in images]
    width = images[0].shape[1]
    space = max(width, *(len(caption) for caption in captions)) + gap
    rows = [Text().join(_padded(one, space) for one in level) for level in zip(*drawn, strict=True)]
    return [*rows, Text("").join(_padded(Text(caption), space) for caption in captions)]


def _padded(text: Text, width: int) -> Text:
    out = text.copy()
    out.append(" " * (width - len(text)))
    return out
