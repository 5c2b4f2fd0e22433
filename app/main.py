"""The HTTP application: `create_app(service)` puts routers, error rendering and the edge together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI

from app import __version__
from app.api import (
    aliases,
    artifacts,
    audit,
    callbacks,
    certificates,
    classes,
    datasets,
    forget_previews,
    forget_requests,
    health,
    history,
    jobs,
    keys,
    limits,
    methods,
    models,
    openapi,
    predict,
    problems,
    updates,
    uploads,
    versions,
)
from app.api.deps import each_key_once, known_query
from app.api.edge import Edge
from app.methods import networks
from app.service import Service
from app.services.callers.keys import Keys
from app.services.feed import Feed
from app.services.memory import Memory
from app.services.predictions.predict import Predictor

log = logging.getLogger(__name__)

ROUTERS: tuple[APIRouter, ...] = (
    datasets.router,
    uploads.router,
    models.router,
    updates.router,
    versions.router,
    classes.router,
    aliases.router,
    history.router,
    predict.router,
    artifacts.router,
    forget_previews.router,
    forget_requests.router,
    certificates.router,
    callbacks.router,
    jobs.router,
    methods.router,
    limits.router,
    keys.router,
    audit.router,
    health.version_router,
)


def create_app(service: Service) -> FastAPI:
    """The app over an opened service with an up-to-date schema; whoever opened the service closes it."""
    memory = Memory(service.db, service.settings.api.refresh_seconds)
    api_keys = Keys(service.db, memory)
    feed = Feed(service.db)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        networks.warm_up()
        memory.start(also=api_keys.write_uses)
        app.state.predictor = predictor = Predictor(service, memory)
        poller = asyncio.create_task(feed.run())
        log.info("api started")
        try:
            yield
        finally:
            feed.close()
            poller.cancel()
            with suppress(asyncio.CancelledError):
                await poller
            await to_thread.run_sync(predictor.close)
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
    app.state.service, app.state.memory = service, memory
    app.state.keys, app.state.feed = api_keys, feed
    problems.install(app)
    app.include_router(health.router)
    both = [Depends(known_query), Depends(each_key_once)]
    for router in ROUTERS:
        app.include_router(router, prefix="/v1", dependencies=both)
    app.add_middleware(Edge, keys=api_keys, limits=service.settings.limits)
    openapi.install(app)
    return app
