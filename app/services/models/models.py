"""Models: create, read, change, delete and purge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from safetensors.torch import load as parse
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import ids, methods
from app.db import clock, touch
from app.errors import (
    DimensionMismatch,
    NameConflict,
    NotFound,
    Purged,
    UnsupportedTask,
    ValidationFailed,
)
from app.methods import networks
from app.methods.base import Kind, Task
from app.methods.networks import BadNetwork
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.schemas.models import Gates, ModelChange, ModelCreate, ModelRead
from app.service import Caller, Service
from app.services import jobs
from app.services.callers import audit
from app.services.erasure import entries
from app.services.forget import deleted
from app.services.models import heads
from app.services.paging import Page, Place, Window, window
from app.services.policies import policy_settings
from app.tables import Alias, AliasMove, Dataset, Job, Model, Upload

if TYPE_CHECKING:
    from app.services.callers.idempotency import Once

Check = Callable[[int | None], None]  # raises unless the caller read that revision; None: nothing is there


def get(session: Session, tenant_id: UUID, model_id: UUID, *, lock: bool = False) -> Model:
    """The model of a tenant; raises `NotFound`, or `Purged` where it was deleted."""
    query = select(Model).where(Model.id == model_id, Model.tenant_id == tenant_id)
    row = session.scalar(query.with_for_update() if lock else query)
    name = ids.encode("mdl", model_id)
    if row is None:
        raise NotFound(f"there is no model {name}")
    if row.deleted_at is not None:
        raise Purged(f"model {name} was deleted at {row.deleted_at:%Y-%m-%dT%H:%M:%SZ}")
    return row


def read(service: Service, tenant_id: UUID, model_id: UUID) -> ModelRead:
    """One model; raises `NotFound` or `Purged`."""
    with service.db.read() as session:
        return ModelRead.of(get(session, tenant_id, model_id))


def browse(
    service: Service, tenant_id: UUID, page: Page[Place], *, task: Task | None, name: str | None
) -> Window[Model]:
    """The models of a tenant, oldest first, without deleted ones."""
    query = select(Model).where(Model.tenant_id == tenant_id, Model.deleted_at.is_(None))
    if task is not None:
        query = query.where(Model.task == task.value)
    if name is not None:
        query = query.where(Model.name == name)
    with service.db.read() as session:
        return window(session, query, page, Model)


def create(service: Service, caller: Caller, body: ModelCreate, once: Once | None = None) -> ModelRead:
    """A new model without versions."""
    _check_task(body.task)
    tensors = _weights(service, caller, body.network.weights) if body.network.weights else None
    _check_network(body, tensors)
    heads.check(body, service.settings.jobs.memory_bytes)
    with service.db.begin() as session:
        if once:
            once.begin(session)
        if session.scalar(select(Model.id).filter_by(tenant_id=caller.tenant_id, name=body.name)):
            raise NameConflict(f"a model {body.name!r} exists", pointer="/name")
        row = Model(
            id=ids.new(),
            tenant_id=caller.tenant_id,
            created_at=clock(session),
            name=body.name,
            task=body.task.value,
            input=body.input.model_dump(mode="json", exclude={"grid", "target"}),
            grid=body.input.model_dump(mode="json")["grid"],
            network={"name": body.network.name, "params": dict(body.network.params)},
            **heads.columns(body),
            weights_id=body.network.weights,
            evaluation_id=body.evaluation,
            gates=body.gates.model_dump(),
            min_centroid_rows=body.min_centroid_rows,
            keep_versions=body.keep_versions,
            on_taint=body.on_taint,
            deleted_at=None,
            revision=1,
        )
        if body.evaluation:
            check_evaluation(session, row, body.evaluation)
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:  # a parallel call was first
            raise NameConflict(f"a model {body.name!r} exists", pointer="/name") from None
        if body.update_policy:
            policy_settings.put(session, caller, row, body.update_policy, service.settings.jobs.memory_bytes)
            policy_settings.check_model(session, row)
        _record(session, caller, "model.created", row)
        touch(session)
        answer = ModelRead.of(row)
        if once:
            location = {"Location": f"/v1/models/{ids.encode('mdl', row.id)}"}
            once.finish(
                session,
                status=201,
                body=answer.model_dump(mode="json"),
                headers=location,
                resource_id=row.id,
            )
    return answer


def change(service: Service, caller: Caller, model_id: UUID, body: ModelChange, check: Check) -> ModelRead:
    """Change what the body names, if it is as the caller read it."""
    with service.db.begin() as session:
        row = get(session, caller.tenant_id, model_id, lock=True)
        check(row.revision)
        given = body.model_fields_set
        if "evaluation" in given:
            if body.evaluation:
                check_evaluation(session, row, body.evaluation)
            row.evaluation_id = body.evaluation
        if "gates" in given:
            row.gates = body.gates.model_dump()
        if "min_centroid_rows" in given:
            row.min_centroid_rows = body.min_centroid_rows
        if "keep_versions" in given:
            row.keep_versions = body.keep_versions
        if "on_taint" in given:
            row.on_taint = body.on_taint
        if "update_policy" in given:
            policy_settings.put(session, caller, row, body.update_policy, service.settings.jobs.memory_bytes)
        policy_settings.check_model(session, row)
        row.revision += 1
        _record(session, caller, "model.changed", row)
        touch(session)
        return ModelRead.of(row)


def remove(service: Service, caller: Caller, model_id: UUID, check: Check) -> Job:
    """Take the model out of service at once and queue the job that destroys what its versions stored.

    Requests that waited for the model's forget job go on: their purge takes what its versions know.
    """
    with service.db.begin() as session:
        entries.lock(session)  # no request is approved meanwhile that would wait for a job of this model
        _stop_jobs(session, caller, model_id)  # jobs before models, as in a publication
        row = get(session, caller.tenant_id, model_id, lock=True)
        check(row.revision)
        now = clock(session)
        row.deleted_at, row.revision = now, row.revision + 1
        row.name = f"deleted {ids.encode('mdl', row.id)}"  # the name is content, and free again
        for alias in session.scalars(select(Alias).filter_by(model_id=row.id)):
            session.add(_removal(alias, caller.actor, now))
        session.execute(delete(Alias).where(Alias.model_id == row.id))
        job = jobs.new_job(
            session,
            tenant_id=row.tenant_id,
            kind="purge",
            queue="io",
            lane=None,
            urgency=20,
            model_id=row.id,
            resource_id=None,
            request={"model": row.id.hex},
            actor=caller.actor,
            request_id=caller.request_id,
            datasets=(),
            max_attempts=service.settings.jobs.max_attempts,
        )
        _record(session, caller, "model.deleted", row)
        session.flush()
        erase = deleted.let_model_go(session, row.id)
        touch(session)
    for purge in (job, erase):
        if purge is not None:
            service.bell.ring(purge.id, purge.queue)
    return job


def check_evaluation(
    session: Session, model: Model, dataset_id: UUID, pointer: str = "/evaluation"
) -> Dataset:
    """The dataset, where it can measure this model."""
    row = fitting(session, model, dataset_id, pointer)
    if row.train_rows + row.eval_rows == 0:
        raise ValidationFailed("the evaluation dataset has no rows", pointer=pointer)
    return row


def fitting(session: Session, model: Model, dataset_id: UUID, pointer: str) -> Dataset:
    """A dataset whose rows have the form of the model's input, and labels, or targets for a regression."""
    row = session.scalar(select(Dataset).filter_by(id=dataset_id, tenant_id=model.tenant_id, arriving=False))
    name = ids.encode("dst", dataset_id)
    if row is None:
        raise NotFound(f"there is no dataset {name}", pointer=pointer)
    if row.deleted_at is not None:
        raise Purged(f"dataset {name} was deleted at {row.deleted_at:%Y-%m-%dT%H:%M:%SZ}", pointer=pointer)
    if row.for_forget:
        raise ValidationFailed(
            f"dataset {name} was sent to be forgotten (for_forget): no model may read it", pointer=pointer
        )
    spec = InputSpec(**model.input)
    if tuple(row.shape) != spec.shape or row.dtype != spec.dtype:
        raise DimensionMismatch(
            f"rows of {name} are {row.dtype} {list(row.shape)}; "
            f"the model's input is {spec.kind}, {spec.dtype} {list(spec.shape)}",
            pointer=pointer,
        )
    truth = "targets" if model.task == Task.REGRESSION else "labels"
    if not (row.has_targets if model.task == Task.REGRESSION else row.has_labels):
        raise ValidationFailed(f"rows of {name} have no {truth}", pointer=pointer)
    return row


def gates_of(model: Model) -> Gates:
    """The gates that are set."""
    return Gates(**model.gates)


def _check_task(task: Task) -> None:
    served = {t for method in methods.ALL if method.kind is Kind.UPDATE for t in method.tasks}
    if task not in served:
        known = ", ".join(sorted(served))
        raise UnsupportedTask(
            f"no method serves task {task.value}; there are methods for {known}", pointer="/task"
        )


def _weights(service: Service, caller: Caller, upload_id: UUID) -> dict[str, object]:
    with service.db.read() as session:
        upload = session.scalar(select(Upload).filter_by(id=upload_id, tenant_id=caller.tenant_id))
        if upload is None:
            raise NotFound(f"there is no upload {ids.encode('upl', upload_id)}", pointer="/network/weights")
        file_id, key_id = upload.file_id, upload.key_id
    return dict(parse(service.vault.open(file_id, service.vault.key(key_id))))


def _check_network(body: ModelCreate, tensors: dict[str, object] | None) -> None:
    spec = NetworkSpec(name=body.network.name, params=body.network.params)
    row = InputSpec(kind=body.input.kind, shape=body.input.shape)
    try:
        networks.build(spec, row)
        if tensors is not None:
            networks.check_weights(spec, row, tensors)  # type: ignore[arg-type]
    except BadNetwork as error:
        raise ValidationFailed(str(error), pointer=error.field) from None


def _stop_jobs(session: Session, caller: Caller, model_id: UUID) -> None:
    """Cancel what is queued or running on the model; a publication that is on its way comes first."""
    mine = (Job.model_id == model_id, Job.tenant_id == caller.tenant_id, Job.lane.is_not(None))
    waiting = select(Job.id).where(*mine, Job.state.in_((jobs.State.QUEUED, jobs.State.RUNNING)))
    for job_id in session.scalars(waiting.order_by(Job.id)).all():
        jobs.cancel_in(session, caller, job_id)


def _removal(alias: Alias, actor: str, now: object) -> AliasMove:
    return AliasMove(
        tenant_id=alias.tenant_id,
        model_id=alias.model_id,
        name=alias.name,
        version_id=None,
        reason="the model was deleted",
        actor=actor,
        created_at=now,
    )


def _record(session: Session, caller: Caller, action: str, row: Model) -> None:
    resources = {"model": row.id}
    audit.record(session, tenant_id=row.tenant_id, actor=caller.actor, action=action, resources=resources)
