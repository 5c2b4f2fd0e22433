"""Write the parts of the documentation that come from the code.

python -m docs.generate methods     docs/methods.md, from the registry of methods
python -m docs.generate openapi     docs/openapi.json, from the routes
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from inspect import getdoc, getmodule
from pathlib import Path
from typing import Any

from app import methods
from app.config import Settings
from app.main import create_app
from app.methods.base import Method
from app.service import open_service

HERE = Path(__file__).parent


def methods_page() -> str:
    """One section per method: what it is, where it comes from, its parameters."""
    parts = [
        "# Methods",
        "",
        "Written from the registry by `make docs`. A method is chosen as `{name, params}`; parameters that",
        "are left out take their defaults. `palimpsest methods NAME` shows them as flags.",
        "",
    ]
    for method in methods.ALL:
        parts += section(method)
    return "\n".join(parts).rstrip() + "\n"


def section(method: Method[Any]) -> Iterator[str]:
    """A method in Markdown, line by line."""
    yield f"## {method.name}"
    yield ""
    yield method.summary
    yield ""
    tasks = ", ".join(sorted(method.tasks))
    needs = ", ".join(sorted(method.needs))
    yield f"Kind `{method.kind}`; tasks: {tasks}; needs: {needs}, as {method.reads}. Source: {method.source}"
    yield ""
    yield "| parameter | type | default | what it does |"
    yield "|---|---|---|---|"
    schema = method.params.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        what = str(field.get("description", "")).replace("|", "\\|")
        yield f"| `{name}` | {kind_of(field, schema)} | `{json.dumps(field.get('default'))}` | {what} |"
    yield ""
    module = getmodule(method.run)
    if module is not None and (text := getdoc(module)):
        yield text
        yield ""


def kind_of(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Type and bounds of a parameter, in words."""
    if "$ref" in field:
        return kind_of(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return " or ".join(kind_of(option, schema) for option in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    bounds = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
    }
    limits = [f"{sign} {field[name]}" for name, sign in bounds.items() if name in field]
    return ", ".join([str(field.get("type", "value")), *limits])


def openapi_page() -> str:
    """The OpenAPI document of the service."""
    with tempfile.TemporaryDirectory() as folder:
        service = open_service(Settings(data_dir=Path(folder)))
        try:
            document = create_app(service).openapi()
        finally:
            service.close()
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


PAGES = {"methods": ("methods.md", methods_page), "openapi": ("openapi.json", openapi_page)}


def main(names: list[str]) -> None:
    for name in names or list(PAGES):
        file, page = PAGES[name]
        (HERE / file).write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
