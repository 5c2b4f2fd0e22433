"""Times that clients send: RFC 3339 with an offset, nothing that only looks like a time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, WithJsonSchema

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _written_out(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("a time is written as 2026-01-05T09:00:00Z")
    return value


Instant = Annotated[
    AwareDatetime, BeforeValidator(_written_out), WithJsonSchema({"type": "string", "format": "date-time"})
]
