"""What pydantic finds wrong, in the words of this service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_words(found: Mapping[str, Any]) -> str:
    """The message of one of `ValidationError.errors()`."""
    kind, message = found["type"], str(found["msg"])
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "this field is needed"
    if kind == "union_tag_invalid" and found["loc"]:
        return f"no such {found['loc'][-1]}; choose one of {found['ctx']['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"say which by the field {found['ctx']['discriminator']}"
    return message.removeprefix("Value error, ")
