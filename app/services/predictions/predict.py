"""Predictions: a version kept warm, a bounded number of callers, and turns between them.

Nothing here writes: a prediction leaves every row and file as it was.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import threadpoolctl
import torch
from numpy.typing import NDArray

from app import ids
from app.errors import ArtifactCorrupt, NonFinite, NotReady, ValidationFailed, VersionNotReady
from app.methods.base import Unfit
from app.methods.parts.features import embed
from app.methods.parts.scoring import top_k
from app.metrics import ARTIFACT_FAILURES, PREDICT_SECONDS
from app.service import Caller, Service
from app.services.memory import Memory
from app.services.predictions import loaded, serving
from app.services.predictions.inputs import POINTER, check_rows
from app.services.predictions.loaded import Cache, Ready
from app.services.predictions.serving import Target
from app.services.predictions.turns import Steps, Turns, finish

log = logging.getLogger(__name__)

SMALL = 1 << 16  # bytes that are parsed on the event loop
SWITCH_SECONDS = 0.0005  # after which a busy thread gives way to the event loop
DAMAGED_SECONDS = 30.0  # how long a damaged version is not opened again


@dataclass(frozen=True)
class Ask:
    """What a caller wants to know. Without alias and version the latest version answers."""

    inputs: Sequence[Any] | NDArray[Any]
    alias: str | None = None
    version: int | None = None
    top_k: int = 1


class Predictor:
    """One per process. `predict` is called on the event loop and computes elsewhere."""

    def __init__(self, service: Service, memory: Memory) -> None:
        api = service.settings.api
        self._service = service
        self._memory = memory
        self._most_rows = service.settings.limits.predict_rows
        self._most_waiting = api.predict_queue + api.predict_threads
        self.waiting = 0  # admitted and not answered; touched on the event loop only
        self._damaged: dict[UUID, float] = {}  # version -> when it may be tried again
        sys.setswitchinterval(SWITCH_SECONDS)
        self.cache = Cache(lambda id: loaded.read(service, id), api.cache_bytes)
        self.turns = Turns(api.predict_threads, _limit_threads(api.predict_threads))

    def close(self) -> None:
        self.turns.close()
        self.cache.close()

    async def predict(self, caller: Caller, model_id: UUID, read: Steps[Ask], size: int) -> bytes:
        """The answer as JSON (`schemas.predict.PredictRead`).

        `read` parses a body of `size` bytes; a large one is parsed in turns. Raises `NotReady` beyond the
        queue, and whatever is wrong with the request.
        """
        with self._admit(), PREDICT_SECONDS.time():
            ask = finish(read) if size <= SMALL else await asyncio.wrap_future(self.turns.submit(read))
            target = await self._target(caller.tenant_id, model_id, ask)
            served, ready = await self._open(target)
            shown = await asyncio.wrap_future(self.turns.submit(self._compute(served, ready, ask)))
        return _answer(target, served, ready, shown)

    @contextmanager
    def _admit(self) -> Iterator[None]:
        if self.waiting >= self._most_waiting:
            raise NotReady("too many predictions are waiting", headers={"Retry-After": "1"})
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def _target(self, tenant_id: UUID, model_id: UUID, ask: Ask) -> Target:
        key = ("predict", tenant_id, model_id, ask.alias, ask.version)
        found: Target | None = self._memory.peek(key)
        if found is not None:
            if time.monotonic() < found.until:
                return found
            self._memory.forget(key)

        def load() -> Target:
            with self._service.db.read() as session:
                self.cache.drop(serving.gone(session, self.cache.held()))
                return serving.resolve(session, tenant_id, model_id, ask.alias, ask.version)

        return await asyncio.to_thread(self._memory.get, key, load)

    async def _open(self, target: Target) -> tuple[Target, Ready]:
        """The version that was asked for; behind an alias, the newest healthy one where it is damaged."""
        try:
            return target, await self._ready(target)
        except ArtifactCorrupt:
            if target.alias is None:
                raise
            for other in await asyncio.to_thread(self._instead, target):
                try:
                    return other, await self._ready(other)
                except ArtifactCorrupt:
                    continue
            raise

    async def _ready(self, target: Target) -> Ready:
        id = target.version_id
        found = self.cache.peek(id)
        if found is not None:
            return found
        if self._damaged.get(id, 0.0) > time.monotonic():
            raise ArtifactCorrupt(f"a stored file of version {target.number} is damaged or gone")
        try:
            return await asyncio.shield(asyncio.wrap_future(self.cache.get(id)))  # others may wait for it
        except ArtifactCorrupt:
            self._damaged[id] = time.monotonic() + DAMAGED_SECONDS
            ARTIFACT_FAILURES.inc()
            log.error("a version is damaged: out of service", extra={"version_id": id.hex})
            raise

    def _compute(self, served: Target, ready: Ready, ask: Ask) -> Steps[list[str]]:
        rows = check_rows(ask.inputs, served.input, self._most_rows)
        if ready.regression and ask.top_k > 1:
            raise ValidationFailed("a regression predicts one value and has no classes", pointer="/top_k")
        banned = [i for i, id in enumerate(ready.class_ids) if id in served.hidden]
        k = min(ask.top_k, len(ready.classes) - len(banned))
        if k < 1 and not ready.regression:
            raise VersionNotReady("no class of this version may be predicted any more")
        shown = []
        for start in range(0, len(rows), ready.rows_per_step):
            if start:
                yield
            shown.append(_predict(ready, rows[start : start + ready.rows_per_step], k, banned))
        return shown

    def _instead(self, target: Target) -> list[Target]:
        with self._service.db.read() as session:
            return serving.instead(session, target)


def _predict(ready: Ready, rows: NDArray[Any], k: int, banned: list[int]) -> str:
    """JSON of the predictions of some rows: grid features, then values, or scores and the best classes."""
    try:
        [features] = embed(ready.network, [rows], ready.grid, batch=len(rows))
    except Unfit:
        raise NonFinite("the network gives values that are not finite", pointer=POINTER) from None
    if ready.regression:
        return json.dumps([{"value": value} for value in ready.scorer.values(features).tolist()])[1:-1]
    scores = ready.scorer(features)
    scores[:, banned] = -np.inf
    return _show(ready, *top_k(scores, k))


def _show(ready: Ready, best: NDArray[np.int64], scores: NDArray[np.float32]) -> str:
    """JSON objects, one a row, without the brackets of their list."""
    rows = []
    for classes, values in zip(best.tolist(), scores.tolist(), strict=True):
        tops = [
            {"label": ready.classes[at], "class_id": ready.class_names[at], "score": value}
            for at, value in zip(classes, values, strict=True)
        ]
        rows.append({**tops[0], "top_k": tops} if len(tops) > 1 else tops[0])
    return json.dumps(rows, ensure_ascii=False)[1:-1]


def _answer(asked: Target, served: Target, ready: Ready, shown: list[str]) -> bytes:
    head = {
        "model": ids.encode("mdl", served.model_id),
        "version": served.number,
        "alias": served.alias,
        "instead_of": (asked.instead_of or asked.number) if served is not asked else asked.instead_of,
        "class_map_digest": ready.class_map_digest,
    }
    return f'{json.dumps(head)[:-1]}, "predictions": [{", ".join(shown)}]}}'.encode()


def _limit_threads(workers: int) -> Callable[[], None]:
    """Leave a core to the event loop: called in each thread that computes."""
    cores = len(os.sched_getaffinity(0))
    each = max(1, (cores - 1) // workers)

    def prepare() -> None:
        torch.set_num_threads(each)
        threadpoolctl.threadpool_limits(each, user_api="blas")

    return prepare
