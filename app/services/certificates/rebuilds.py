"""Versions made again on the service's own machine, from the stored rows and nothing else.

Reads only: rows by their shards, digests by the version's key object, which the result is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import torch

from app import ids
from app.errors import ArtifactCorrupt, Purged
from app.methods.base import Context, Reads, Snapshot
from app.proof.again import CannotReproduce, Portion, Portions, made_again, method_of
from app.proof.reproduce import digests_of
from app.service import Service
from app.services.certificates import recipes
from app.services.certificates.recipes import Recipe
from app.services.datasets import shards
from app.services.models import snapshots, versions
from app.tables import Version


@dataclass(frozen=True)
class Rebuilt:
    """What came of one version."""

    version_id: UUID
    number: int
    model_id: UUID
    method: str
    outcome: str  # equal, different, cannot, skipped
    seconds: float
    reason: str = ""
    residual: float | None = None  # largest difference of a weight or bias, where bytes differ

    def line(self) -> dict[str, Any]:
        """As a request's evidence and a certificate hold it: no digests."""
        found: dict[str, Any] = {
            "model": ids.encode("mdl", self.model_id),
            "version": ids.encode("ver", self.version_id),
            "number": self.number,
            "method": self.method,
            "equal": self.outcome == "equal",
            "outcome": self.outcome,
            "seconds": self.seconds,
        }
        if self.reason:
            found["reason"] = self.reason
        if self.residual is not None:
            found["residual"] = self.residual
        return found


def rebuild(service: Service, version_id: UUID, ctx: Context) -> Rebuilt:
    """Make a version again and compare the digests of head and statistics with those that it has.

    One that was replaced, before or meanwhile, is skipped: what it was made from is being erased.
    """
    started = time.monotonic()
    with service.db.read() as session:
        recipe = recipes.of(session, session.get_one(Version, version_id))
    version = recipe.version

    def said(outcome: str, reason: str = "", residual: float | None = None) -> Rebuilt:
        if outcome != "equal" and (gone := _gone(service, version.id)):
            outcome, reason, residual = "skipped", gone, None
        seconds = round(time.monotonic() - started, 3)
        return Rebuilt(
            version.id, version.number, version.model_id, version.method, outcome, seconds, reason, residual
        )

    if version.state != "ready":
        return said("skipped")
    try:
        published = service.vault.key(version.key_id).digests
        made = made_again(recipe.describe(), _portions(service, recipe), ctx)
    except CannotReproduce as error:
        return said("cannot", f"{error}")
    except (ArtifactCorrupt, Purged):
        return said("cannot", "rows that it was made from are not stored any more")
    found = digests_of(made)
    names = {*found, *({"weights", "statistics"} & published.keys())}
    different = sorted(name for name in names if found.get(name) != published.get(name))
    if not different:
        return said("equal")
    residual = None if _gone(service, version.id) else _residual(service, version.id, made)
    return said("different", ", ".join(different), residual)


def _portions(service: Service, recipe: Recipe) -> Portions:
    reads = method_of(recipe.describe()).reads
    feature_map = recipe.version.feature_map_id if reads is Reads.FEATURES else None

    def portions() -> Iterator[Portion]:
        for use in recipe.uses:
            for block in shards.read(service, use.dataset_id, feature_map):
                yield Portion(
                    x=block.x,
                    labels=block.labels.astype(np.int64),
                    names=block.names,
                    targets=block.targets if recipe.regression else None,
                    step=use.step_of(block, regression=recipe.regression),
                    selected=use.selects(block, regression=recipe.regression),
                )

    return portions


def _gone(service: Service, version_id: UUID) -> str:
    """Why a version is not to be made again; empty while it serves."""
    with service.db.read() as session:
        version = session.get_one(Version, version_id)
        if version.state == "ready":
            return ""
        newest = versions.replacement(session, version)
        if newest is None:
            return f"version {version.number} is {version.state}"
        return f"version {version.number} was replaced by version {newest.number}"


def _residual(service: Service, version_id: UUID, made: Snapshot) -> float | None:
    """The largest difference between the two heads; None where their shapes differ."""
    stored = snapshots.load(service, version_id, centroids=False).snapshot.head
    assert stored is not None
    assert made.head is not None
    pairs = [(stored.weight, made.head.weight), (stored.bias, made.head.bias)]
    if any(one.shape != other.shape for one, other in pairs):
        return None
    return max(float((one - other).abs().max()) if one.numel() else 0.0 for one, other in pairs)


def context(service: Service) -> Context:
    """Where rebuilds compute: as the jobs that learn do."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Context(device=device, memory=service.settings.jobs.memory_bytes)
