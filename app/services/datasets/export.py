"""The rows of a dataset as one version was made from them: one NPZ that leaves, registered.

Grid features, labels, and the step that learned each row: enough to make the version again elsewhere
(`docs/certificates.md`). The version's nonce goes with them, so that digests can be compared.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.errors import ArtifactCorrupt, NotFound, Purged
from app.service import Caller, Service
from app.services import zips
from app.services.certificates import recipes
from app.services.certificates.recipes import UNUSED, Recipe, Use
from app.services.datasets import shards
from app.services.datasets.shards import Block
from app.services.models import artifacts, models, versions
from app.tables import Dataset, FeatureMap

Array = NDArray[Any]
TYPES: Mapping[str, type[np.generic]] = {
    "position": np.int64,
    "label": np.int32,  # an index into `classes`, -1 for none
    "step": np.int32,
    "selected": np.bool_,
}


@dataclass(frozen=True)
class _Table:
    """What is known of the rows before their features are read."""

    arrays: dict[str, Array]
    width: int

    @property
    def rows(self) -> int:
        return len(self.arrays["position"])


def export(
    service: Service, caller: Caller, dataset_id: UUID, model_id: UUID, number: int, recipient: str | None
) -> artifacts.Taken:
    """Register that the rows leave, and give the file. Owns its transactions.

    Raises `NotFound` where the version was not made from the dataset, and what an artifact raises.
    """
    with service.db.read() as session:
        recipe = _allowed(session, caller, dataset_id, model_id, number)
        width = session.get_one(FeatureMap, recipe.version.feature_map_id).width
    use = next(use for use in recipe.uses if use.dataset_id == dataset_id)
    table = _table(service, recipe, use, width)
    with service.db.begin() as session:
        recipe = _allowed(session, caller, dataset_id, model_id, number)
        taken = {"dataset": dataset_id, "version": recipe.version.id}
        export_id = artifacts.register(session, caller, "dataset.exported", recipient, taken)
    name = f"{ids.encode('dst', dataset_id)}.{ids.encode('ver', recipe.version.id)}.npz"
    return artifacts.Taken(export_id, name, zips.stream(_members(service, recipe, use, table)))


def _allowed(session: Session, caller: Caller, dataset_id: UUID, model_id: UUID, number: int) -> Recipe:
    """How the version was made, if it and the dataset may leave."""
    dataset = session.scalar(select(Dataset).filter_by(id=dataset_id, tenant_id=caller.tenant_id))
    if dataset is None or dataset.arriving:
        raise NotFound("there is no such dataset")
    if dataset.deleted_at is not None:
        raise Purged("the dataset was deleted")
    model = models.get(session, caller.tenant_id, model_id)
    version = versions.by_number(session, model, number)
    artifacts.allow(session, caller, model, version)
    recipe = recipes.of(session, version)
    if all(use.dataset_id != dataset_id for use in recipe.uses):
        raise NotFound(f"version {number} was not made from rows of this dataset")
    return recipe


def _table(service: Service, recipe: Recipe, use: Use, width: int) -> _Table:
    """One pass over the shards for all but the features."""
    dataset_id, regression = use.dataset_id, recipe.regression
    key = service.vault.key(recipe.version.key_id)
    if key.nonce is None:
        raise ArtifactCorrupt("the version has no nonce")
    names: tuple[str, ...] = ()
    parts: list[dict[str, Array]] = []
    for block in _blocks(service, recipe, use):
        names = block.names
        parts.append(_said(block, use, regression=regression))
    types = {**TYPES, **({"target": np.float64} if regression else {})}
    arrays: dict[str, Array] = {
        "dataset": np.array(ids.encode("dst", dataset_id)),
        "model": np.array(ids.encode("mdl", recipe.model.id)),
        "version": np.array(ids.encode("ver", recipe.version.id)),
        "nonce": np.frombuffer(key.nonce, np.uint8),
        "classes": np.array(names, np.str_),
    }
    for name, dtype in types.items():
        arrays[name] = np.concatenate([np.empty(0, dtype), *(part[name] for part in parts)]).astype(dtype)
    return _Table(arrays, width)


def _said(block: Block, use: Use, *, regression: bool) -> dict[str, Array]:
    """All but the features of some rows."""
    found: dict[str, Array] = {
        "position": block.positions,
        "label": block.labels,
        "step": use.step_of(block, regression=regression),
        "selected": use.selects(block, regression=regression),
    }
    return found if block.targets is None else {**found, "target": block.targets}


def _blocks(service: Service, recipe: Recipe, use: Use) -> Iterator[Block]:
    """The rows that the version was made from, on its grid."""
    for block in shards.read(service, use.dataset_id, recipe.version.feature_map_id):
        kept = use.step_of(block, regression=recipe.regression) != UNUSED
        kept |= use.selects(block, regression=recipe.regression)
        if kept.any():
            yield block if kept.all() else block.pick(kept)


def _members(
    service: Service, recipe: Recipe, use: Use, table: _Table
) -> Iterator[tuple[str, Iterator[bytes]]]:
    for name, array in table.arrays.items():
        yield f"{name}.npy", zips.parts(_npy(array))
    yield "x.npy", _features(service, recipe, use, table)


def _features(service: Service, recipe: Recipe, use: Use, table: _Table) -> Iterator[bytes]:
    """`x`, int16 (rows, width), as its shards are opened. Breaks off where rows were erased meanwhile."""
    header = io.BytesIO()
    shape = {"descr": "<i2", "fortran_order": False, "shape": (table.rows, table.width)}
    np.lib.format.write_array_header_1_0(header, shape)
    yield header.getvalue()
    sent = 0
    for block in _blocks(service, recipe, use):
        sent += len(block)
        yield np.ascontiguousarray(block.x, "<i2").tobytes()
    if sent != table.rows:
        raise Purged("rows of the dataset were erased while it left")


def _npy(array: Array) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array(held, array, allow_pickle=False)
    return held.getvalue()
