"""What wire schemas share: unknown fields are refused, times are UTC with Z, answers are immutable."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Body(BaseModel):
    """A request: a field that is not known is refused, never ignored; "1" and true are no numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Answer(BaseModel):
    """A response."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def display_name(value: str) -> str:
    """NFC, trimmed, 1 to 200 characters, no control or bidirectional-override characters."""
    name = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(name) <= 200:
        raise ValueError("a name has 1 to 200 characters")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI for c in name):
        raise ValueError("a name has no control or bidirectional characters")
    return name


def text(value: str) -> str:
    """Text that every database holds: no NUL and no halves of characters."""
    if any(c == "\0" or unicodedata.category(c) == "Cs" for c in value):
        raise ValueError("text has no NUL and no halves of surrogate pairs")
    return value


Name = Annotated[str, AfterValidator(display_name)]
Text = Annotated[str, AfterValidator(text)]
