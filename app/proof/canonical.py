"""Canonical JSON (RFC 8785): one text for one value, so that it can be signed and checked byte by byte.

Members in the order of the UTF-16 units of their names, no white space, strings with the fewest escapes,
numbers as ECMAScript writes them. Whole numbers are below 2**53 in magnitude: larger ones are sent as text.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

MOST = 2**53


class NotCanonical(ValueError):
    """Bytes that are not the canonical text of a value, or a value that has none."""


def canonical(value: Any) -> bytes:
    """The canonical text of a JSON value, UTF-8. Raises `NotCanonical`."""
    try:
        return _text(value).encode()
    except UnicodeEncodeError:
        raise NotCanonical("text has half of a surrogate pair") from None


def parse(raw: bytes) -> Any:
    """The value of a canonical text; raises `NotCanonical` where another text of it was sent."""
    try:
        value = json.loads(raw, parse_int=_whole)
    except (ValueError, RecursionError):
        raise NotCanonical("this is not JSON") from None
    if canonical(value) != raw:
        raise NotCanonical("this is not the canonical text of its content: it was altered or reformatted")
    return value


def _whole(text: str) -> int | float:
    """A whole number; beyond 2**53 the double it stands for."""
    value = int(text) if len(text) < 18 else MOST
    return value if abs(value) < MOST else float(text)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{_string(key)}:{_text(value[key])}" for key in sorted(value, key=_utf16))
        return f"{{{','.join(members)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    return _scalar(value)


def _utf16(key: object) -> bytes:
    if not isinstance(key, str):
        raise NotCanonical("a name is text")
    return key.encode("utf-16-be", "surrogatepass")


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        if abs(value) >= MOST:
            raise NotCanonical(f"{value} is too large for a number")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    raise NotCanonical(f"JSON has no {type(value).__name__}")


_string = json.JSONEncoder(ensure_ascii=False).encode  # of text


def _number(value: float) -> str:
    """As ECMAScript writes a double: the fewest digits that read back as it, plain from 1e-6 to 1e21."""
    if not math.isfinite(value):
        raise NotCanonical("JSON has no number that is not finite")
    if value == 0:
        return "0"
    sign, digits, power = Decimal(repr(value)).as_tuple()
    assert isinstance(power, int)
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + power  # digits before the decimal point
    return ("-" if sign else "") + _placed(text, point)


def _placed(digits: str, point: int) -> str:
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
