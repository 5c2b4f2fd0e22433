"""What an update works on, decided when it is claimed: its base, its rows, and which are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from app import methods
from app.errors import NotReady
from app.methods.base import Method, Params, Task
from app.service import Service
from app.services.datasets import features
from app.services.erasure import ledger
from app.services.forget.class_rows import rows_of_class
from app.services.jobs import ClaimedJob
from app.services.models import coverage, models, updates, versions
from app.services.models.coverage import Coverage, Missing
from app.services.models.publish import Edge
from app.tables import Dataset, Model, Version, VersionDataset


@dataclass(frozen=True)
class Use:
    """Which rows of a dataset count: all but `without`; where `only` is set, none but those."""

    dataset_id: UUID
    without: frozenset[int]
    only: frozenset[int] | None = None
    every_split: bool = False  # of a named evaluation dataset

    @classmethod
    def of(cls, missing: Missing) -> Use:
        """Rows that an ancestor learned."""
        return cls(missing.dataset_id, missing.left_out, missing.only)

    def keeps(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(rows,) whether each position counts."""
        kept = ~np.isin(positions, np.fromiter(self.without, np.int64, len(self.without)))
        if self.only is not None:
            kept &= np.isin(positions, np.fromiter(self.only, np.int64, len(self.only)))
        return kept


@dataclass(frozen=True)
class Plan:
    """Everything that the claim decides; rows of tables in here belong to no session."""

    model: Model
    base: Version | None
    method: Method[Any]
    params: Params
    request: Mapping[str, Any]
    feature_map_id: UUID | None  # None: the method trains one
    train: tuple[Use, ...]
    evaluate: tuple[Use, ...]
    select: Use | None  # rows that the method chooses parameters on
    known: Coverage | None  # of what the base learned, where the method reads statistics
    left_out: Mapping[UUID, frozenset[int]]
    ledger_sequence: int
    base_edges: tuple[VersionDataset, ...]
    sizes: Mapping[UUID, int]  # rows of every dataset
    classes_out: frozenset[str] = frozenset()  # no rows of these: a forget request has named them
    earlier: tuple[Mapping[str, float | None], ...] = ()  # accuracy per class of every ancestor

    @property
    def datasets(self) -> tuple[UUID, ...]:
        """Every dataset whose rows are read."""
        return tuple(dict.fromkeys(use.dataset_id for use in (*self.train, *self.evaluate, *self.lacking)))

    @property
    def lacking(self) -> tuple[Use, ...]:
        """Rows that the base learned and the stored statistics lack."""
        return tuple(map(Use.of, self.known.missing)) if self.known else ()

    @property
    def regression(self) -> bool:
        return self.model.task == Task.REGRESSION


def make(service: Service, claimed: ClaimedJob) -> Plan:
    """Look again at all that the request names, now that it is this job's turn."""
    request = claimed.request
    method = methods.BY_NAME[request["method"]["name"]]
    assert claimed.model_id is not None
    with service.db.begin() as session:
        model = models.get(session, claimed.tenant_id, claimed.model_id)
        if request["base"] is not None:  # an erasure may have replaced it since
            request = {**request, "base": versions.in_its_place(session, model.id, request["base"])}
        ground = updates.survey(session, model, dict(request))
        base = ground.base
        if base is None and versions.any_ready(session, model.id):
            raise NotReady("every version contains erased rows: the forget job of the model comes first")
        updates.check(session, ground, method, dict(request), service.settings)
        edges = _edges(session, base)
        own = [row.id for row in ground.datasets]
        named = ground.evaluation
        measured = [named.id] if named else _with_eval_rows(session, model, own, edges)
        known = coverage.of(session, base) if method.statistics and base else None
        newest = ledger.sequence(session)  # first: an entry that comes between is then found at publication
        gone = ledger.unusable(session, {*own, *measured}, model.id)
        learned = {edge.dataset_id: frozenset(edge.left_out) for edge in edges if edge.role == "train"}
        plan = Plan(
            model=model,
            base=base,
            method=method,
            params=_params(method, request["method"]["params"], claimed.halve_batch),
            request=request,
            feature_map_id=None if method.trains_network else features.map_of(session, model, base),
            train=tuple(Use(id, gone[id], learned.get(id)) for id in own),
            evaluate=tuple(Use(id, gone[id], every_split=named is not None) for id in measured),
            select=_selected(method, dict(request), named, gone),
            known=known,
            left_out=gone,
            ledger_sequence=newest,
            base_edges=edges,
            classes_out=frozenset(ledger.classes_out(session, model.id)),
            sizes=_sizes(session, [*gone, *(rows.dataset_id for rows in (known.missing if known else ()))]),
        )
    plan = _without_classes(service, plan)
    return plan if base is None else replace(plan, earlier=_earlier(service, base))


def edges(
    plan: Plan, learned: Mapping[UUID, int], measured: Mapping[UUID, int], selected: Mapping[UUID, int]
) -> list[Edge]:
    """The lineage of the new version: what it used itself, and what its base had used."""
    before = {(edge.dataset_id, edge.role): edge for edge in plan.base_edges}
    found: dict[tuple[UUID, str], Edge] = {}
    for role, counts in (("train", learned), ("evaluate", measured), ("select", selected)):
        for id, rows in counts.items():
            old = before.get((id, role))
            left_out = plan.left_out[id]
            if old is not None:  # what either of them used is used
                left_out = left_out & frozenset(old.left_out)
                rows = rows + old.rows if role == "train" else max(rows, old.rows)
            found[id, role] = Edge(id, role, rows, tuple(sorted(left_out)))
    for key, old in before.items():
        if key not in found:
            found[key] = Edge(old.dataset_id, old.role, old.rows, tuple(old.left_out), inherited=True)
    return list(found.values())


def _without_classes(service: Service, plan: Plan) -> Plan:
    """The plan without the rows of classes that a forget request has named: their labels say which."""
    more: dict[UUID, set[int]] = {}
    for name in sorted(plan.classes_out):
        for dataset_id, positions in rows_of_class(service, plan.left_out, name).items():
            more.setdefault(dataset_id, set()).update(positions)
    if not more:
        return plan
    left_out = {id: gone | more.get(id, set()) for id, gone in plan.left_out.items()}

    def less(use: Use) -> Use:
        return replace(use, without=left_out[use.dataset_id])

    return replace(
        plan,
        train=tuple(map(less, plan.train)),
        evaluate=tuple(map(less, plan.evaluate)),
        select=None if plan.select is None else less(plan.select),
        left_out=left_out,
    )


def _selected(
    method: Method[Any],
    request: dict[str, Any],
    evaluation: Dataset | None,
    gone: Mapping[UUID, frozenset[int]],
) -> Use | None:
    if evaluation is None or not method.selects(request["method"]["params"]):
        return None
    return Use(evaluation.id, gone[evaluation.id], every_split=True)


def _params(method: Method[Any], given: Mapping[str, Any], halve_batch: bool) -> Params:
    """The parameters; after an attempt that ran out of memory with half the batch."""
    params: Params = method.params.model_validate(given)
    batch = getattr(params, "batch_size", None)
    if halve_batch and batch:
        params = params.model_copy(update={"batch_size": max(8, batch // 2)})
    return params


def _edges(session: Session, base: Version | None) -> tuple[VersionDataset, ...]:
    if base is None:
        return ()
    return tuple(session.scalars(select(VersionDataset).where(VersionDataset.version_id == base.id)))


def _with_eval_rows(
    session: Session, model: Model, own: Iterable[UUID], edges: Iterable[VersionDataset]
) -> list[UUID]:
    """Datasets of this update and its ancestry that have rows of split eval, by id."""
    wanted = {*own, *(edge.dataset_id for edge in edges if edge.role == "train")}
    truth = Dataset.has_targets if model.task == Task.REGRESSION else Dataset.has_labels
    rows = session.scalars(
        select(Dataset.id).where(
            Dataset.id.in_(wanted), Dataset.eval_rows > 0, truth, Dataset.deleted_at.is_(None)
        )
    )
    return sorted(rows)


def _sizes(session: Session, datasets: Iterable[UUID]) -> dict[UUID, int]:
    rows = session.execute(select(Dataset.id, Dataset.rows).where(Dataset.id.in_(list(datasets))))
    return {id: count for id, count in rows}


def _earlier(service: Service, base: Version) -> tuple[Mapping[str, float | None], ...]:
    """The accuracy per class of the base and its ancestors, youngest first."""
    line = (
        select(Version.parent_id, Version.metrics, literal(0).label("steps"))
        .where(Version.id == base.id)
        .cte(recursive=True)
    )
    parents = select(Version.parent_id, Version.metrics, line.c.steps + 1).where(
        Version.id == line.c.parent_id
    )
    line = line.union_all(parents)
    with service.db.read() as session:
        metrics = session.scalars(select(line.c.metrics).order_by(line.c.steps)).all()
    return tuple(found.get("per_class", {}) for found in metrics)
