"""The OpenAPI document: 3.1, one security scheme, problems in one shape and media type."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.examples import example
from app.api.problems import MEDIA

ISSUED = {"id", "created_at", "revision", "number", "links"}
PUBLIC = ("/livez", "/healthz", "/readyz", "/metrics", "/v1/version", "/v1/certificate-keys")


def install(app: FastAPI) -> None:
    """Let the app describe itself as it answers."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(document(app))
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    found["openapi"] = "3.1.0"
    components = found.setdefault("components", {})
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "`key_….<secret>`: an API key."}
    }
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    _keep_nulls(components.get("schemas", {}))
    for path, operations in found["paths"].items():
        for operation in operations.values():
            if path not in PUBLIC:
                operation["security"] = [{"key": []}]
            _problems(operation["responses"])
            _examples(operation, components.get("schemas", {}))
    _read_only(components.get("schemas", {}))
    return found


def _keep_nulls(schemas: dict[str, Any]) -> None:
    """FastAPI drops the nulls of an example; where the field is required they belong to it."""
    for schema in schemas.values():
        if isinstance(schema.get("example"), dict):
            for field in schema.get("required", []):
                schema["example"].setdefault(field, None)


def _examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Every body that is JSON, sent or answered, with an example of it."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for media, content in body.get("content", {}).items():
            if media.endswith("json") and content.get("schema"):
                content.setdefault("example", example(content["schema"], schemas))


def _read_only(schemas: dict[str, Any]) -> None:
    """What the service issues: no request has these fields."""
    for name, schema in schemas.items():
        for field in ISSUED & schema.get("properties", {}).keys():
            if not name.endswith(("Create", "Change", "Put", "Rollback")):
                schema["properties"][field]["readOnly"] = True


def _problems(responses: dict[str, Any]) -> None:
    """FastAPI lists errors as JSON, and adds a 422 of its own shape where a route did not name one."""
    default = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if default.get("$ref", "").endswith("HTTPValidationError"):
        responses["422"] = {
            "description": "`validation-failed`: A value is not valid",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    for response in responses.values():
        content = response.get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        if schema.get("$ref", "").endswith("/Problem"):
            content[MEDIA] = content.pop("application/json")
