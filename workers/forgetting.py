"""A forget job at work: what its steps share, and a version as the learning code sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import torch
from sqlalchemy import select

from app import methods
from app.methods.base import Context, Outcome, Progress
from app.methods.unlearning.exact import Sums
from app.service import Service
from app.services.datasets import shards
from app.services.jobs import ClaimedJob
from app.tables import Dataset, Version
from workers.forget_plan import Plan
from workers.plan import Plan as LearningPlan
from workers.plan import Use
from workers.rows import MadeFeatures

Tell = Callable[[float, str, str], None]


@dataclass(frozen=True)
class Network:
    """A network trained anew, and the features made with it, which no row names yet."""

    outcome: Outcome  # of its training: head and centroids too
    features: MadeFeatures
    as_sent: Mapping[UUID, frozenset[UUID]]  # keys of the shards that they were made from


@dataclass
class Forgetting:
    """A claimed forget job at work."""

    service: Service
    claimed: ClaimedJob
    plan: Plan
    device: torch.device
    tell: Tell = lambda share, phase, message: None  # of the version that is made now
    networks: dict[UUID, Network] = field(default_factory=dict)  # by the version that trained the old one
    sums: dict[tuple[object, ...], tuple[Sums, Sums]] = field(default_factory=dict)

    def discard(self) -> None:
        """Destroy features that will not be committed."""
        for network in self.networks.values():
            for made in network.features.values():
                shards.discard(self.service, made)


def learning(
    job: Forgetting,
    version: Version,
    feature_map_id: UUID | None,
    train: Sequence[Use] = (),
    datasets: Sequence[UUID] = (),
) -> LearningPlan:
    """A version as the learning code sees it, with its method, parameters and seed."""
    method = methods.BY_NAME[version.method]
    with job.service.db.read() as session:
        sizes = session.execute(select(Dataset.id, Dataset.rows).where(Dataset.id.in_(datasets))).all()
    return LearningPlan(
        model=job.plan.model,
        base=None,
        method=method,
        params=method.params.model_validate(version.params),
        request={"seed": version.seed, "datasets": []},
        feature_map_id=feature_map_id,
        train=tuple(train),
        evaluate=(),
        select=None,
        known=None,
        left_out={},
        ledger_sequence=job.plan.entries.sequence,
        base_edges=(),
        sizes={id: count for id, count in sizes},
    )


def context(job: Forgetting, version: Version) -> Context:
    def heard(progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 1.0
        job.tell(share, progress.phase or version.method, f"version {version.number}")

    return Context(
        device=job.device,
        seed=version.seed,
        memory=job.service.settings.jobs.memory_bytes,
        on_progress=heard,
    )
