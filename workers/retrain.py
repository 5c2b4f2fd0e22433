"""A network that was trained on rows that go, trained anew from those that stay, once for its versions."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.methods.base import Split
from app.methods.unlearning.exact import NothingLeft
from app.service import Service
from app.tables import Dataset, Shard, Version
from workers import learn, rows
from workers.forget_plan import Task
from workers.forgetting import Forgetting, Network, context, learning
from workers.learn import Work
from workers.measure import Examiner
from workers.plan import Use


def network_of(job: Forgetting, task: Task) -> Network:
    """The network of the task's map, trained anew once for all versions on it, and features of every row that
    they use."""
    trainer = task.trainer
    assert trainer is not None
    if trainer.id not in job.networks:
        on_it = [other for other in job.plan.tasks if other.trainer and other.trainer.id == trainer.id]
        job.networks[trainer.id] = _trained(job, trainer, task.trained_on, on_it)
    return job.networks[trainer.id]


def _trained(job: Forgetting, trainer: Version, uses: Sequence[Use], on_it: Sequence[Task]) -> Network:
    plan = learning(job, trainer, None, uses, _datasets(uses, on_it))
    found = rows.collect(job.service, plan, uses).rows
    if len(found.classes) < 2:
        raise NothingLeft("fewer than two classes would be left to train the network on")
    before = learn.as_created(job.service, job.plan.model)
    outcome = plan.method.run(before, {Split.NEW: found}, plan.params, context(job, trainer))
    nobody = Examiner(outcome.after, (), regression=False)  # versions are measured when all are made
    work = Work(job.service, job.claimed, plan, job.tell, job.device)
    as_sent = {id: _keys(job.service, id) for id in plan.sizes}
    outcome, made = learn.new_features(work, outcome, nobody, tuple(plan.sizes), job.plan.entries.all_rows)
    features: dict[UUID, list[Shard]] = {id: [] for id in plan.sizes}
    for shard in made:
        features[shard.dataset_id].append(shard)
    return Network(outcome, features, as_sent)


def _datasets(uses: Sequence[Use], on_it: Sequence[Task]) -> list[UUID]:
    every = [*uses]
    for task in on_it:
        every += [*task.everything, *task.evaluate, *([task.select] if task.select else [])]
    return sorted({use.dataset_id for use in every})


def _keys(service: Service, dataset_id: UUID) -> frozenset[UUID]:
    with service.db.read() as session:
        return keys_as_sent(session, dataset_id)


def still_as_sent(job: Forgetting, session: Session) -> bool:
    """Whether no erasure rewrote rows that were put through a new network; a dataset may have gone."""
    for network in job.networks.values():
        for id, seen in network.as_sent.items():
            now = keys_as_sent(session, id)
            if now != seen and session.scalar(select(Dataset.id).filter_by(id=id, deleted_at=None)):
                return False
    return True


def keys_as_sent(session: Session, dataset_id: UUID) -> frozenset[UUID]:
    """The keys of a dataset's shards as sent: an erasure changes them."""
    return frozenset(
        session.scalars(
            select(Shard.key_id).where(Shard.dataset_id == dataset_id, Shard.feature_map_id.is_(None))
        )
    )
