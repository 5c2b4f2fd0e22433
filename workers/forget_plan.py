"""What a forget job does, decided before anything is computed: which versions, and a way for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import methods
from app.errors import ArtifactCorrupt
from app.methods.base import Method, Params
from app.methods.base import Task as Purpose
from app.service import Service
from app.services.forget import ways
from app.services.forget.ways import Way
from app.services.jobs import ClaimedJob
from app.services.models import coverage, models, versions
from app.tables import Dataset, Job, Model, Version
from workers import forget_reach as reach
from workers import forget_rows, forget_sent
from workers.forget_entries import Entries, Gone, united
from workers.forget_reach import Edges
from workers.forget_rows import Forgotten
from workers.forget_sent import Offer
from workers.plan import Use


@dataclass(frozen=True)
class Task:
    """One version to be replaced, and which rows its replacement uses."""

    old: Version
    way: Way
    method: Method[Any] | None  # None for an import
    params: Params | None
    edges: Edges
    learned: Gone  # the rows that it learned from and that go
    requests: frozenset[UUID]  # whose rows, or classes, it knows
    own: tuple[Use, ...]  # train rows of its own update
    everything: tuple[Use, ...]  # train rows of all its ancestry
    evaluate: tuple[Use, ...]
    select: Use | None
    lost: frozenset[str]  # classes that it may not know any more
    whole: bool  # every dataset that its ancestry learned from is stored
    trainer: Version | None = None  # whose network is trained anew
    trained_on: tuple[Use, ...] = ()  # the rows that it is trained on
    statistics_only: bool = False  # it is retired, but usable versions build on its statistics


@dataclass(frozen=True)
class Plan:
    """Everything that the claim decides; rows of tables in here belong to no session."""

    model: Model
    entries: Entries
    tasks: tuple[Task, ...]  # oldest first
    forgotten: Mapping[UUID, Forgotten]  # by feature map
    sent: Mapping[UUID, Offer] = field(default_factory=dict)  # rows sent again, by request

    @property
    def regression(self) -> bool:
        return bool(self.model.task == Purpose.REGRESSION)


def make(service: Service, claimed: ClaimedJob, entries: Entries, tell: Callable[[], None]) -> Plan:
    """Find the versions that know what goes or do not open, read the rows that go, choose a way for each."""
    assert claimed.model_id is not None
    gone, lost = entries.all_rows, entries.all_classes
    shut = frozenset(UUID(hex=id) for id in claimed.request.get("rebuild", ()))
    with service.db.read() as session:
        model = models.get(session, claimed.tenant_id, claimed.model_id)
        found = reach.affected(session, model, gone, lost, shut)
        used: dict[UUID, list[Gone]] = {}
        for version, edges in found:
            used.setdefault(version.feature_map_id, []).append(reach.used(edges, gone, "train"))
    forgotten = {
        map_id: forget_rows.read(service, map_id, united(parts), gone, tell) for map_id, parts in used.items()
    }
    offered = forget_sent.offers(service, entries)
    open_ones = [one for one, _ in found if one.state == "ready" and one.id not in shut]
    for map_id, one in {one.feature_map_id: one for one in open_ones}.items():
        forgotten[map_id] = forget_sent.complete(service, model, one, forgotten[map_id], offered)
    with service.db.read() as session:
        planner = _Planner(service, session, model, entries, gone, lost, forgotten, shut)
        tasks = [planner.task(version, edges) for version, edges in found]
    return Plan(model, entries, tuple(tasks), forgotten, offered)


@dataclass(frozen=True)
class _Planner:
    service: Service
    session: Session
    model: Model
    entries: Entries
    gone: Gone
    lost: Mapping[UUID, str]
    forgotten: Mapping[UUID, Forgotten]
    shut: frozenset[UUID]  # versions of which something that they stored does not open

    def task(self, version: Version, edges: Edges) -> Task:
        """What is done to one version."""
        stored = self.forgotten[version.feature_map_id]
        regression = self.model.task == Purpose.REGRESSION
        silent = united([stored.measured(), stored.unlabelled(regression=regression), stored.silent])
        learned = {
            id: rows
            for id, positions in reach.used(edges, self.gone, "train").items()
            if (rows := positions - silent.get(id, frozenset()))
        }
        lost = self._lost(version)
        way = ways.of(
            self.session,
            self.model,
            version,
            self.gone,
            measured=silent,
            classes=self.lost.keys(),
            sent=stored.sent,
        )
        if way.kind in ("subtract", "replay") and _needs_missing(version, learned, stored, lost):
            way = Way("retrain", "exact", "the rows themselves are not stored any more", way.reads_rows, 1)
        method = methods.BY_NAME.get(version.method)
        trainer = ways.trained_on(self.session, version, self.gone, silent, self.lost.keys())
        requests = self._requests(version, edges)
        way = ways.insisted(way, {self.entries.methods.get(id, "auto") for id in requests})
        if version.id in self.shut:
            way = Way("retrain", "exact", "what it stored does not open any more", way.reads_rows, 1)
            trainer = trainer or self._shut_trainer(version)
        uses, below = self._uses(version, edges, silent), ()
        if way.kind == "retrain" and trainer is not None:
            below = self._uses(trainer, reach.edges_of(self.session, trainer.id), silent)["own"]
        return Task(
            old=version,
            way=self._possible(way, uses, learned),
            method=method,
            params=None if method is None else method.params.model_validate(version.params),
            edges=edges,
            learned=learned,
            requests=requests,
            lost=lost,
            trainer=trainer if way.kind == "retrain" else None,
            trained_on=below,
            statistics_only=version.state != "ready",
            **uses,
        )

    def _uses(self, version: Version, edges: Edges, silent: Gone) -> dict[str, Any]:
        """Rows of the replacement, by what they do; a deleted dataset all of whose rows go has none."""
        alive = set(
            self.session.scalars(
                select(Dataset.id).where(
                    Dataset.id.in_([edge.dataset_id for edge in edges]), Dataset.deleted_at.is_(None)
                )
            )
        )
        parent = {} if version.parent_id is None else coverage.train_edges(self.session, version.parent_id)
        everything, own, evaluate, chosen = [], [], [], None
        named = _named_evaluations(self.session, version)
        learned = {edge.dataset_id for edge in edges if edge.role == "train"}
        for edge in sorted(edges, key=lambda edge: edge.dataset_id):
            id = edge.dataset_id
            without = frozenset(edge.left_out) | self.gone.get(id, frozenset())
            if edge.role == "train" and id not in alive:
                taken = self.gone.get(id, frozenset()) - silent.get(id, frozenset())
                if len(taken - frozenset(edge.left_out)) >= edge.rows:
                    continue
            if edge.role == "train":
                everything.append(Use(id, without))
                if id not in parent:
                    own.append(Use(id, without))
                elif more := parent[id] - without:
                    own.append(Use(id, without, more))
            elif edge.role == "evaluate" and not edge.inherited and id in alive:
                evaluate.append(Use(id, without, every_split=id in named or id not in learned))
            elif edge.role == "select" and not edge.inherited and id in alive:
                chosen = Use(id, without, every_split=True)
        return {
            "whole": all(use.dataset_id in alive for use in everything),
            "everything": tuple(everything),
            "own": tuple(own),
            "evaluate": tuple(evaluate),
            "select": chosen,
        }

    def _shut_trainer(self, version: Version) -> Version | None:
        """The version that trained the network of this one, where the network does not open."""
        trainer = ways.trainer_of(self.session, version)
        if trainer is None or opens(self.service, trainer.file_id, trainer.key_id):
            return None
        return trainer

    def _possible(self, way: Way, uses: Mapping[str, Any], learned: Gone) -> Way:
        """The way, or `drop` where rows that it reads are not stored."""
        own = [use.dataset_id for use in uses["own"]]
        deleted = select(Dataset.id).where(Dataset.id.in_(own), Dataset.deleted_at.is_not(None)).limit(1)
        lacks = {
            "replay": lambda: self.session.scalar(deleted) is not None,
            "retrain": lambda: not uses["whole"],
        }
        if way.kind not in lacks or not lacks[way.kind]():
            return way
        return ways.dropped(learned)

    def _requests(self, version: Version, edges: Edges) -> frozenset[UUID]:
        """The requests whose rows it used in any role, or whose classes it knows."""
        known = reach.classes_of(self.session, version.id)
        used = united(reach.used(edges, self.gone, role) for role in {edge.role for edge in edges})
        by_rows = {
            self.entries.request_of[sequence]
            for sequence, rows in self.entries.rows.items()
            if any(id in used and not positions.isdisjoint(used[id]) for id, positions in rows.items())
        }
        by_classes = {
            self.entries.request_of[sequence]
            for sequence, names in self.entries.classes.items()
            if not known.isdisjoint(names)
        }
        return frozenset(by_rows | by_classes)

    def _lost(self, version: Version) -> frozenset[str]:
        known = reach.classes_of(self.session, version.id)
        return frozenset(name for id, name in self.lost.items() if id in known)


def opens(service: Service, file_id: UUID, key_id: UUID) -> bool:
    """Whether a stored file opens with its key."""
    try:
        service.vault.open(file_id, service.vault.key(key_id))
    except ArtifactCorrupt:
        return False
    return True


def _needs_missing(version: Version, learned: Gone, stored: Forgotten, lost: frozenset[str]) -> bool:
    """Whether rows are nowhere that have to be taken away. Those of a class that goes as a whole do not where
    the version keeps no statistics: a centroid goes by itself."""
    for id, positions in learned.items():
        spared = stored.labels.get(id, {}) if version.statistics_file_id is None else {}
        needless = frozenset().union(*(rows for name, rows in spared.items() if name in lost))
        if stored.nowhere.get(id, frozenset()) & positions - needless:
            return True
    return False


def _named_evaluations(session: Session, version: Version) -> set[UUID]:
    """Datasets that the version's update named for its evaluation: all their rows were predicted."""
    first = versions.first(session, version)
    job = None if first.job_id is None else session.get(Job, first.job_id)
    asked = None if job is None else job.request.get("evaluation")
    if asked:
        return {UUID(hex=asked)}
    by_default = session.get_one(Model, version.model_id).evaluation_id
    return set() if by_default is None else {by_default}
