"""Versions ready to predict, kept warm within a number of bytes; the least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from uuid import UUID

import torch
from torch import nn

from app import ids
from app.methods import networks
from app.methods.base import Snapshot
from app.methods.parts.grid import Grid
from app.methods.parts.scoring import Scorer, scorer_of
from app.service import Service
from app.services.models import snapshots

STEP = 1 << 26  # multiplications of one step: some ten milliseconds of one core
MOST_ROWS = 256  # of one step


@dataclass(frozen=True)
class Ready:
    """A version made ready: network and scorer, and what its classes are called."""

    network: nn.Module
    grid: Grid
    scorer: Scorer
    classes: tuple[str, ...]
    class_ids: tuple[UUID, ...]
    class_names: tuple[str, ...]  # `cls_…`
    class_map_digest: str
    rows_per_step: int  # fixed, so that the same request is cut the same way every time
    size: int  # bytes
    regression: bool = False  # one value a row, and no classes


def read(service: Service, version_id: UUID) -> Ready:
    """Open a version and make it ready. Raises as `snapshots.load` does."""
    loaded = snapshots.load(service, version_id, centroids=False)
    snapshot = loaded.snapshot
    assert snapshot.head is not None
    network = networks.load(snapshot.network, snapshot.input, snapshot.weights)
    scorer = scorer_of(snapshot)
    tensors = [*network.parameters(), *network.buffers()]
    return Ready(
        network=network,
        grid=snapshot.grid,
        scorer=scorer,
        classes=snapshot.classes,
        class_ids=loaded.class_ids,
        class_names=tuple(ids.encode("cls", id) for id in loaded.class_ids),
        class_map_digest=loaded.class_map_digest,
        regression=snapshot.target is not None,
        rows_per_step=_rows_per_step(network, snapshot),
        size=sum(t.numel() * t.element_size() for t in tensors)
        + scorer.weight.nbytes
        + 4 * _expansion_cost(snapshot)
        + 256 * len(snapshot.classes),
    )


class Cache:
    """Ready versions by id. A version that is wanted by many at once is loaded once.

    A version larger than the whole limit is handed out and not kept.
    """

    def __init__(self, load: Callable[[UUID], Ready], limit: int) -> None:
        self._load = load
        self._limit = limit
        self._lock = threading.Lock()
        self._ready: OrderedDict[UUID, Ready] = OrderedDict()  # least recently used first
        self._loading: dict[UUID, Future[Ready]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")

    @property
    def size(self) -> int:
        """Bytes held now."""
        with self._lock:
            return sum(ready.size for ready in self._ready.values())

    def peek(self, id: UUID) -> Ready | None:
        """The version if it is here; never waits."""
        with self._lock:
            if id not in self._ready:
                return None
            self._ready.move_to_end(id)
            return self._ready[id]

    def get(self, id: UUID) -> Future[Ready]:
        """The version, loaded in a thread of its own where it is not here."""
        with self._lock:
            if id in self._ready:
                self._ready.move_to_end(id)
                done: Future[Ready] = Future()
                done.set_result(self._ready[id])
                return done
            if id not in self._loading:
                self._loading[id] = self._loader.submit(self._fill, id)
            return self._loading[id]

    def held(self) -> list[UUID]:
        """Ids of the versions that are here, least recently used first."""
        with self._lock:
            return list(self._ready)

    def drop(self, ids: Collection[UUID]) -> None:
        """Forget these versions: they were destroyed."""
        with self._lock:
            for id in ids:
                self._ready.pop(id, None)

    def close(self) -> None:
        self._loader.shutdown(wait=True, cancel_futures=True)

    def _fill(self, id: UUID) -> Ready:
        try:
            ready = self._load(id)
        except BaseException:
            with self._lock:
                del self._loading[id]
            raise
        with self._lock:
            del self._loading[id]
            if ready.size <= self._limit:
                self._ready[id] = ready
                held = sum(other.size for other in self._ready.values())
                while held > self._limit:
                    _, oldest = self._ready.popitem(last=False)
                    held -= oldest.size
        return ready


def _rows_per_step(network: nn.Module, snapshot: Snapshot) -> int:
    """How many rows fit in one step, from the multiplications that one row costs."""
    assert snapshot.head is not None
    cost = 2 * snapshot.head.weight.numel() + prod(snapshot.input.shape) + _expansion_cost(snapshot)

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal cost
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:
            cost += output.numel() * weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        network(torch.zeros(1, *snapshot.input.shape, dtype=getattr(torch, snapshot.input.dtype)))
    for hook in hooks:
        hook.remove()
    return max(1, min(MOST_ROWS, STEP // cost))


def _expansion_cost(snapshot: Snapshot) -> int:
    """Entries of the projection that an expanded head puts features through."""
    if snapshot.head is None or not snapshot.head.expanded:
        return 0
    return networks.width(snapshot.network, snapshot.input) * int(snapshot.head.weight.shape[1])
