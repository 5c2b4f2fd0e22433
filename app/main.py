"""The HTTP application: `create_app(service)` puts routers, error rendering and the edge together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI

from app import __version__
from app.api import audit, health, keys, openapi, problems
from app.api.deps import known_query
from app.api.edge import Edge
from app.service import Service
from app.services.keys import Keys
from app.services.memory import Memory

log = logging.getLogger(__name__)

ROUTERS: tuple[APIRouter, ...] = (
    keys.router,
    audit.router,
    health.version_router,
)


def create_app(service: Service) -> FastAPI:
    """The app over an opened service whose schema is up to date; closing the service stays with the caller."""
    memory = Memory(service.db, service.settings.api.refresh_seconds)
    api_keys = Keys(service.db, memory)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        memory.start(also=api_keys.write_uses)
        log.info("api started")
        try:
            yield
        finally:
            await to_thread.run_sync(memory.stop)
            log.info("api stopped")

    app = FastAPI(
        title="Palimpsest",
        version=__version__,
        summary="Models that keep learning and can forget.",
        openapi_url="/openapi.json",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service, app.state.memory, app.state.keys = service, memory, api_keys
    problems.install(app)
    app.include_router(health.router)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1", dependencies=[Depends(known_query)])
    app.add_middleware(Edge, keys=api_keys, limits=service.settings.limits)
    openapi.install(app)
    return app
