"""Feature maps: network weights and grid, and the shards of grid features made once per dataset and map."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from uuid import UUID

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from torch import nn

from app import ids
from app.db import clock, insert_of
from app.methods import networks
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.features import BATCH, embed
from app.methods.parts.grid import Grid
from app.service import Service
from app.services.datasets import shards
from app.services.datasets.shards import Block
from app.tables import Dataset, FeatureMap, Model, Shard, Version

IDENTITY = "identity"


def frozen_source(model: Model) -> str | None:
    """Where the model's features come from before any version trained them; None where nothing can say."""
    grid = json.dumps(model.grid, sort_keys=True)
    if model.network["name"] == IDENTITY:
        return f"identity:{grid}:{'x'.join(map(str, model.input['shape']))}:{model.input['kind']}"
    if model.weights_id is not None:
        network = json.dumps(model.network, sort_keys=True)
        shape = "x".join(map(str, model.input["shape"]))
        return f"upload:{model.weights_id.hex}:{network}:{grid}:{shape}"
    return None


def trained_source(version_id: UUID) -> str:
    """The source of a map that a version trained."""
    return f"version:{version_id.hex}"


def width(model: Model) -> int:
    """How many features a row of the model has."""
    return networks.width(NetworkSpec(**model.network), InputSpec(**model.input))


def map_of(session: Session, model: Model, base: Version | None) -> UUID | None:
    """The feature map that an update on `base` learns in, made where it is new; None: it must train one."""
    if base is not None:
        return base.feature_map_id
    source = frozen_source(model)
    return None if source is None else ensure_map(session, model, source)


def ensure_map(session: Session, model: Model, source: str) -> UUID:
    """The id of a tenant's map, inserted where there is none; two that race get the same one."""
    row = {
        "id": ids.new(),
        "tenant_id": model.tenant_id,
        "source": source,
        "width": width(model),
        "created_at": clock(session),
    }
    session.execute(
        insert_of(session)(FeatureMap)
        .values(row)
        .on_conflict_do_nothing(index_elements=["tenant_id", "source"])
    )
    found = session.scalar(
        select(FeatureMap.id).where(FeatureMap.tenant_id == model.tenant_id, FeatureMap.source == source)
    )
    assert found is not None
    return found


def ensure(
    service: Service,
    dataset_id: UUID,
    feature_map_id: UUID,
    network: nn.Module,
    grid: Grid,
    device: torch.device,
    tell: Callable[[int], None],
    batch: int = BATCH,
) -> None:
    """Store the dataset's features in a map unless they are there; `tell` hears of the rows done.

    Rows that a request restricts are put through too: they stay where the dataset is and go with it. Of two
    jobs that race one stores; an erasure meanwhile starts the work again.
    """
    while not shards.has_map(service, dataset_id, feature_map_id):
        seen = _shards_as_sent(service, dataset_id)
        made = make(service, dataset_id, feature_map_id, network, grid, device, tell, batch)
        if _commit(service, dataset_id, feature_map_id, made, seen):
            return  # a dataset whose rows are all erased has nothing to store
        shards.discard(service, made)


def make(
    service: Service,
    dataset_id: UUID,
    feature_map_id: UUID | None,
    network: nn.Module,
    grid: Grid,
    device: torch.device,
    tell: Callable[[int], None],
    batch: int = BATCH,
    see: Callable[[Block], None] = lambda _: None,
    leave_out: Collection[int] = (),
) -> list[Shard]:
    """Seal the dataset's features and give the rows that name them, in no session; `see` gets each block.

    Positions in `leave_out` are not put through.
    """
    with service.db.read() as session:
        tenant_id = session.get_one(Dataset, dataset_id).tenant_id

    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int16], int]]:
        clipped: list[int] = []
        for block in shards.read(service, dataset_id, leave_out=leave_out):
            (rows,) = embed(network, [block.x], grid, device, batch, on_clipped=clipped.append)
            see(replace(block, x=rows))
            tell(len(block))
            yield block.positions, rows, clipped[-1]

    return shards.write_grid(
        service, tenant_id=tenant_id, dataset_id=dataset_id, feature_map_id=feature_map_id, parts=parts()
    )


def _shards_as_sent(service: Service, dataset_id: UUID) -> dict[UUID, UUID]:
    with service.db.read() as session:
        return _keys(session, dataset_id)


def _keys(session: Session, dataset_id: UUID) -> dict[UUID, UUID]:
    rows = session.execute(
        select(Shard.id, Shard.key_id).where(Shard.dataset_id == dataset_id, Shard.feature_map_id.is_(None))
    )
    return {id: key_id for id, key_id in rows}


def _commit(
    service: Service, dataset_id: UUID, feature_map_id: UUID, made: list[Shard], seen: dict[UUID, UUID]
) -> bool:
    """Name the shards, unless the dataset changed meanwhile or another job was first."""
    try:
        with service.db.begin() as session:
            dataset = session.scalars(select(Dataset).filter_by(id=dataset_id).with_for_update()).one()
            if dataset.deleted_at is not None or _keys(session, dataset_id) != seen:
                return False
            session.add_all(made)
    except IntegrityError:
        return False
    return True
