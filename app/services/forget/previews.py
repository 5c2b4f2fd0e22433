"""A look at what a forget request would touch. It stores nothing but that somebody looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.schemas.forget import ForgetCreate
from app.schemas.forget_preview import (
    DatasetTouched,
    ExportTouched,
    ForgetPreview,
    JobTouched,
    ModelTouched,
    Shares,
    VersionTouched,
    WayRead,
)
from app.service import Caller, Service
from app.services.callers import audit
from app.services.erasure.ledger import CLASS
from app.services.forget import classes_left, closure, estimate, limits, locate, targets, ways
from app.services.forget.class_rows import rows_of_class
from app.services.forget.classes_left import Labels
from app.services.forget.closure import Closure, Touched
from app.services.forget.estimate import Cost
from app.tables import Model, ModelClass

Rows = dict[UUID, set[int]]

REFUSED = "; the request insists on exact and waits as failed: ask again with auto or retrain"

WAITS = "; the request waits as failed for a retry with them, or with `withdraw`, and only then does it go"


def preview(service: Service, caller: Caller, body: ForgetCreate) -> ForgetPreview:
    """The closure of a request, its cost, and what it would not reach; raises as the request itself would."""
    tenant_id = caller.tenant_id
    named = targets.digested(service, tenant_id, body)
    plain = sorted({target for person in named for target in person})
    with service.db.begin() as session:
        targets.check(session, tenant_id, body)
        audit.record(
            session, tenant_id=tenant_id, actor=caller.actor, action="forget.previewed", resources={}
        )
    classes = [UUID(hex=one.removeprefix(CLASS)) for one in plain if one.startswith(CLASS)]
    of_classes = _rows_of_classes(service, classes)
    models = None if body.models is None else set(body.models)
    labels = _labels(service, tenant_id, body, plain, of_classes)
    with service.db.read() as session:
        rows, shared = _rows(session, tenant_id, body, plain, of_classes)
        found = closure.of(session, tenant_id, rows, classes, models)
        costs = _costs(session, found, classes, labels, body.method.name)
        return ForgetPreview(
            scope=body.scope,
            persons=len(named),
            found=len(_with(named, estimate.targets_found(session, tenant_id, plain))),
            samples=sum(map(len, found.rows.values())),
            shared=sum(map(len, shared.values())),
            datasets=_datasets(session, found, shared),
            models=[_model(session, id, line, costs[id], classes) for id, line in found.versions.items()],
            jobs=[
                JobTouched(job=job.id, kind=job.kind, state=job.state, checkpoint=saved)
                for job, saved in found.jobs
            ],
            exports=[
                ExportTouched(
                    export=row.id,
                    version=row.version_id,
                    dataset=row.dataset_id,
                    recipient=row.recipient,
                    actor=row.actor,
                    at=row.created_at,
                )
                for row in found.exports
            ],
            exactly_removable=_shares(session, tenant_id, named, plain, found, costs),
            estimated_seconds=round(
                estimate.purge(found) + sum(_job_seconds(one) for one in costs.values()), 2
            ),
            uncovered=limits.uncovered(service, session, body, found, shared),
        )


def _rows_of_classes(service: Service, classes: Sequence[UUID]) -> Rows:
    """Where rows with the labels of these classes are: in the datasets that the classes' own models used."""
    with service.db.read() as session:
        query = select(ModelClass.name, ModelClass.model_id).where(ModelClass.id.in_(classes))
        wanted = [
            (name, closure.datasets_of(session, [model_id])) for name, model_id in session.execute(query)
        ]
    rows: Rows = {}
    for name, datasets in wanted:
        for dataset_id, positions in rows_of_class(service, datasets, name).items():
            rows.setdefault(dataset_id, set()).update(positions)
    return rows


def _rows(
    session: Session, tenant_id: UUID, body: ForgetCreate, plain: Sequence[str], of_classes: Rows
) -> tuple[Rows, Rows]:
    """The rows that would go, and those found that name other persons too."""
    rows = {**locate.rows(session, tenant_id, plain), **of_classes}
    if body.scope != "subject":
        return rows, {}
    shared = locate.shared(session, rows, {target.removeprefix("subject:") for target in plain})
    if body.shared_rows == "report":
        rows = {id: positions - shared.get(id, set()) for id, positions in rows.items()}
    return rows, shared


def _labels(
    service: Service, tenant_id: UUID, body: ForgetCreate, plain: Sequence[str], of_classes: Rows
) -> Labels:
    """The labels of the rows that would go, read only where a version could lose a class with them."""
    models = None if body.models is None else set(body.models)
    with service.db.read() as session:
        rows, _ = _rows(session, tenant_id, body, plain, of_classes)
        found = locate.affected(session, tenant_id, rows, (), models)
        ready = [version for line in found.values() for version in line if version.state == "ready"]
        needed = any(ways.may_lose_classes(session, version, rows) for version in ready)
    return classes_left.read(service, rows) if needed else Labels()


def _costs(
    session: Session, found: Closure, classes: Sequence[UUID], labels: Labels, asked: str
) -> dict[UUID, Mapping[UUID, Cost]]:
    return {
        id: estimate.of_model(session, session.get_one(Model, id), line, found, classes, labels, asked)
        for id, line in found.versions.items()
    }


def _job_seconds(costs: Mapping[UUID, Cost]) -> float:
    return round(estimate.JOB + sum(cost.seconds for cost in costs.values()), 3)


def _datasets(session: Session, found: Closure, shared: Rows) -> list[DatasetTouched]:
    return [
        DatasetTouched(
            dataset=one.dataset.id,
            rows=one.rows,
            shared=len(shared.get(one.dataset.id, ())),
            retained=one.dataset.deleted_at is None,
            shards=one.shards,
            features=one.features,
            without_subject=closure.without_subject(session, one.dataset),
        )
        for one in found.datasets
    ]


def _model(
    session: Session,
    model_id: UUID,
    line: Sequence[Touched],
    costs: Mapping[UUID, Cost],
    classes: Sequence[UUID],
) -> ModelTouched:
    model = session.get_one(Model, model_id)
    versions = [touched.version for touched in line]
    own = select(ModelClass.id).where(ModelClass.model_id == model_id, ModelClass.id.in_(classes))
    return ModelTouched(
        model=model_id,
        name=model.name,
        classes=list(session.scalars(own.order_by(ModelClass.id))),
        versions=[_version(touched, costs.get(touched.version.id)) for touched in line],
        centroids=closure.centroids(session, [version.id for version in versions]),
        statistics=len({version.statistics_file_id for version in versions} - {None}),
        guarantee="exact" if costs else None,
        seconds=_job_seconds(costs),
    )


def _version(touched: Touched, cost: Cost | None) -> VersionTouched:
    way = None
    if cost is not None:
        way = WayRead(
            name=cost.way.kind,
            guarantee=cost.way.guarantee,
            reason=cost.way.reason
            + (WAITS if cost.way.unstored else "")
            + (REFUSED if cost.way.refused else ""),
            reads_rows=cost.way.reads_rows,
            steps=cost.way.steps,
            classes_gone=list(cost.way.classes_gone),
            seconds=cost.seconds,
        )
    version = touched.version
    return VersionTouched(
        id=version.id,
        number=version.number,
        state=version.state,
        roles=dict(touched.roles),
        aliases=list(touched.aliases),
        way=way,
    )


def _shares(
    session: Session,
    tenant_id: UUID,
    named: targets.Named,
    plain: Sequence[str],
    found: Closure,
    costs: Mapping[UUID, Mapping[UUID, Cost]],
) -> Shares:
    """Which share of the rows found, and of the persons who have some, could be removed exactly now."""
    every = {id: cost for line in costs.values() for id, cost in line.items()}
    out = estimate.not_exact(found, every)
    rows = sum(map(len, found.rows.values()))
    kept = sum(len(positions) for id, positions in found.rows.items() if id not in out)
    persons = _with(named, estimate.targets_found(session, tenant_id, plain))
    lost = _with(named, estimate.targets_found(session, tenant_id, plain, out)) if out else []
    return Shares(
        rows=kept / rows if rows else None,
        persons=1 - len(lost) / len(persons) if persons and rows else None,
    )


def _with(named: targets.Named, there: set[str]) -> list[int]:
    """The entries of a request that have one of these targets."""
    return [at for at, person in enumerate(named) if not there.isdisjoint(person)]
