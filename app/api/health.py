"""Is it alive, can it work, what is it: for probes, Prometheus and people."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version as installed

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from app import __version__
from app.api.deps import ServiceDep
from app.schemas.base import Answer
from app.services import readiness, scrape

router = APIRouter(tags=["operations"])
version_router = APIRouter(tags=["operations"])


class Live(Answer):
    """The process runs."""

    status: str = Field(examples=["ok"])


class ReleaseRead(Answer):
    """What answers."""

    version: str
    api: str = Field(description="Prefix of every path of this interface.")
    python: str
    torch: str


LIVE = Live(status="ok")


@cache
def _release() -> ReleaseRead:
    return ReleaseRead(
        version=__version__, api="/v1", python=platform.python_version(), torch=installed("torch")
    )


@router.get("/livez", operation_id="operations_livez")
async def livez() -> Live:
    """The process runs; says nothing of the database."""
    return LIVE


@router.get("/healthz", operation_id="operations_healthz")
async def healthz() -> Live:
    """The same as `/livez`."""
    return LIVE


@router.get(
    "/readyz",
    operation_id="operations_readyz",
    responses={503: {"model": readiness.Readiness, "description": "A check that must hold does not."}},
)
def readyz(service: ServiceDep, response: Response) -> readiness.Readiness:
    """Whether work can be taken: database, schema, storage. Without the broker `degraded`, still 200."""
    found = readiness.look(service)
    if found.status == "unavailable":
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return found


@router.get("/metrics", operation_id="operations_metrics", response_class=Response)
def metrics(service: ServiceDep) -> Response:
    """Prometheus text: what this process counted, and the jobs in the database."""
    return Response(scrape.text(service), media_type=CONTENT_TYPE_LATEST)


@version_router.get("/version", operation_id="operations_version")
async def release() -> ReleaseRead:
    """Release and interface."""
    return _release()
