"""Datasets for tests of services, sent without HTTP."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import numpy as np

from app import ids
from app.intake.clean import Options
from app.intake.media import Format
from app.intake.spool import Spooled, spool
from app.service import Caller, Service
from app.services.callers.idempotency import Once, reserved
from app.services.datasets import arrivals
from app.tables import Dataset


def spooled(service: Service, body: bytes) -> Spooled:
    """A body on disk, as the route puts it there."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    settings = service.settings
    return asyncio.run(spool(chunks(), settings.objects_dir / "tmp", settings.limits, lambda head: None))


def send(
    service: Service,
    caller: Caller,
    *,
    options: Options | None = None,
    model_id: UUID | None = None,
    **arrays: Any,
) -> Dataset:
    """A dataset from arrays, through the same door as one from HTTP."""
    file = io.BytesIO()
    columns: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(file, **columns)
    once = Once(caller.tenant_id, "POST /v1/datasets", ids.new().hex)
    with spooled(service, file.getvalue()) as body, reserved(service, once) as held:
        row, is_new = arrivals.accept(
            service, caller, body, Format.NPZ, options or Options(), held.once, model_id
        )
    assert is_new
    return row
