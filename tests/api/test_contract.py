"""Requests made from the document, in process: answers are as documented, whatever is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.generation import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from app.config import Settings
from app.main import create_app
from app.service import open_service
from app.services.callers import access
from docs.generate import openapi_page
from tests.api.conftest import bearer
from tests.api.world import build

CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
BINARY = (
    "application/vnd.apache.parquet",
    "application/x-ndjson",
    "application/jsonl",
    "application/x-npy",
    "application/x-npz",
    "application/x-safetensors",
    "application/zip",
)


class Running:
    """The app under test, known to the document before it runs."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@schemathesis.serializer(*BINARY)
def as_it_is(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


RUNNING = Running()
SCHEMA = schemathesis.openapi.from_dict(json.loads(openapi_page()))
SCHEMA.app = RUNNING
few = settings(
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def world(template, tmp_path_factory) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The app runs; the ids of one of everything in it, and the headers of its owner."""
    data_dir = tmp_path_factory.mktemp("contract")
    template.copy_to(data_dir / "palimpsest.db")
    service = open_service(Settings(data_dir=data_dir))
    access.bootstrap(service)
    headers = bearer((data_dir / access.ADMIN_KEY_FILE).read_text().strip())
    with TestClient(create_app(service), headers=headers) as client:
        ids = build(client)
    RUNNING.app = create_app(service)
    yield ids, headers
    asgi.shutdown_lifespans()
    service.close()


@pytest.mark.slow
@SCHEMA.exclude(operation_id=["jobs_events", "operations_metrics"]).parametrize()
@few
def test_answers_as_documented(case, world):
    ids, headers = world
    meant = case.meta.generation.mode is GenerationMode.POSITIVE
    if meant and case.method in ("GET", "POST"):  # what others change must stay for them
        case.path_parameters.update({k: v for k, v in ids.items() if k in case.path_parameters})

    case.call_and_validate(headers=headers, checks=CHECKS)
