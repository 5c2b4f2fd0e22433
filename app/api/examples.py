"""An example of every body, made from its schema: the values that fields name, else what fits their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDS = "01jd8x4r9kf3v5n2m7q6t0a1bc"
TEXTS = {"date-time": "2026-01-05T09:00:00Z", "binary": "", "uuid": "01939a10-0000-7000-8000-000000000000"}
USUAL = {"name": "digits", "alias": "production"}
DEEP = 8  # a schema that contains itself ends there


def example(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
    """A value that the schema accepts. `schemas` holds what its references name."""
    if "$ref" in schema:
        named = schemas[str(schema["$ref"]).rpartition("/")[2]]
        return example(named, schemas, name, depth)
    if "example" in schema:
        return schema["example"]
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            return example(schema[key][0], schemas, name, depth)
    return _plain(schema, schemas, name, depth)


def _plain(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str, depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return _object(schema, schemas, depth)
    if kind == "array":
        least = max(1, int(schema.get("minItems", 0))) if depth < DEEP else 0
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return [example(inner, schemas, name.removesuffix("s"), depth + 1) for _ in range(least)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return int(least) if kind == "integer" else least
    if kind == "boolean":
        return False
    return None if kind == "null" else _text(schema, name)


def _object(schema: Mapping[str, Any], schemas: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Every field of an answer; of a request, which refuses unknown fields, what is needed or usual."""
    fields = schema.get("properties", {}) if depth < DEEP else {}
    if schema.get("additionalProperties") is False:
        needed = schema.get("required", [])
        fields = {k: v for k, v in fields.items() if k in needed or v.get("default") is not None}
    return {key: example(inner, schemas, key, depth + 1) for key, inner in fields.items()}


def _text(schema: Mapping[str, Any], name: str) -> str:
    pattern = str(schema.get("pattern", ""))
    prefix = pattern[1:4]
    if pattern.startswith("^") and pattern[4:6] == "_[":
        return f"{prefix}_{IDS}"
    if "format" in schema:
        return TEXTS.get(schema["format"], "text")
    return USUAL.get(name, name.replace("_", "-") or "text")
