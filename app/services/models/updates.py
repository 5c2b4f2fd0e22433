"""The door for new-class data: every check that can be made early, then one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import ids, methods
from app.config import Settings
from app.errors import (
    AlreadyUsed,
    MissingData,
    TooFewSamples,
    UnsupportedTask,
    ValidationFailed,
    VersionTainted,
)
from app.methods.base import Method, Task
from app.schemas.jobs import JobRead
from app.schemas.updates import UpdateCreate
from app.service import Caller, Service
from app.services import jobs
from app.services.callers import audit
from app.services.datasets import features
from app.services.erasure import ledger
from app.services.models import aliases, classes, coverage, heads, models, taint, versions
from app.services.models.coverage import train_edges
from app.tables import Dataset, Job, Model, Version

if TYPE_CHECKING:
    from app.services.callers.idempotency import Once


@dataclass(frozen=True)
class Ground:
    """What an update stands on when it is looked at: its base, and its datasets."""

    model: Model
    base: Version | None
    datasets: Sequence[Dataset]
    evaluation: Dataset | None


def submit(
    service: Service, caller: Caller, model_id: UUID, body: UpdateCreate, once: Once | None = None
) -> Job:
    """Check the request, record its job, and once that is committed wake a worker."""
    method = methods.BY_NAME[body.method.name]
    with service.db.begin() as session:
        if once:
            once.begin(session)
        held = body.base is not None  # until its job is there to spare it, a base could be retired
        model = models.get(session, caller.tenant_id, model_id, lock=held)
        request = request_of(body, may_promote=caller.may("promote"))
        ground = survey(session, model, request)
        something_queued = jobs.waiting_on(session, model.id)
        if ground.base is None and not something_queued:
            _check_untainted(session, model)
        check(session, ground, method, request, service.settings, something_queued)
        if body.alias:
            aliases.check_promotion(session, caller, model, body.alias)
        job = jobs.new_job(
            session,
            tenant_id=caller.tenant_id,
            kind="update",
            queue=service.settings.jobs.update_queue,
            lane=model.id,
            urgency=jobs.Urgency.ON_LANE,
            model_id=model.id,
            resource_id=None,
            request=request,
            actor=caller.actor,
            request_id=caller.request_id,
            datasets=roles(ground, method.selects(request["method"]["params"])),
            max_attempts=service.settings.jobs.max_attempts,
        )
        resources = {"model": model.id, "job": job.id}
        audit.record(
            session,
            tenant_id=caller.tenant_id,
            actor=caller.actor,
            action="update.requested",
            resources=resources,
        )
        if once:
            once.finish(
                session,
                status=202,
                body=JobRead.of(job).model_dump(mode="json"),
                headers={"Location": f"/v1/jobs/{ids.encode('job', job.id)}", "Retry-After": "2"},
                resource_id=job.id,
            )
    service.bell.ring(job.id, job.queue)
    return job


def survey(session: Session, model: Model, request: dict[str, Any]) -> Ground:
    """Find what the request names; raises where something is not there or has another form."""
    datasets = [
        models.fitting(session, model, UUID(hex=id), f"/datasets/{i}")
        for i, id in enumerate(request["datasets"])
    ]
    evaluation = None
    if request["evaluation"]:
        evaluation = models.check_evaluation(session, model, UUID(hex=request["evaluation"]))
    elif model.evaluation_id:
        evaluation = models.check_evaluation(session, model, model.evaluation_id)
    return Ground(model, _base(session, model, request["base"]), datasets, evaluation)


def check(
    session: Session,
    ground: Ground,
    method: Method[Any],
    request: dict[str, Any],
    settings: Settings,
    something_queued: bool = False,
) -> None:
    """Refuse what cannot work: labels that clash, rows used before, needs that the model cannot meet.

    What an update that is queued before this one may change is left to the claim.
    """
    _check_method(ground, method, something_queued)
    _check_knowledge(session, ground, method, settings.jobs.memory_bytes, something_queued)
    if method.selects(request["method"]["params"]) and ground.evaluation is None:
        raise ValidationFailed(
            f"{method.name} chooses its parameters on an evaluation dataset; name one", pointer="/evaluation"
        )
    _check_rows(ground.datasets)
    if ground.datasets and ground.model.task != Task.REGRESSION:
        _check_classes(session, ground, request, settings.limits.classes, something_queued)
    check_unused(session, ground)


def _check_classes(
    session: Session,
    ground: Ground,
    request: dict[str, Any],
    most_classes: int,
    something_queued: bool,
) -> None:
    out = ledger.classes_out(session, ground.model.id)
    labels = _labels(ground.datasets, out)
    extend = request["on_conflict"] == "extend"
    classes.check_names(session, ground.model, labels, extend=extend, erased=out)
    before = _class_names(session, ground.base)
    after = before | set(labels)
    if len(after) > most_classes:
        raise ValidationFailed(
            f"the model would have {len(after)} classes; at most {most_classes}", pointer="/datasets"
        )
    if len(after) < 2 and not something_queued:
        raise TooFewSamples("a classifier needs rows of at least two classes", pointer="/datasets")


def check_unused(session: Session, ground: Ground) -> None:
    """Raise `AlreadyUsed` where the ancestry has learned every row of a dataset that may be used."""
    if ground.base is None:
        return
    used = train_edges(session, ground.base.id)
    gone = ledger.unusable(session, [row.id for row in ground.datasets], ground.model.id)
    for i, row in enumerate(ground.datasets):
        if row.id in used and not used[row.id] - gone[row.id]:
            name = ids.encode("dst", row.id)
            raise AlreadyUsed(
                f"version {ground.base.number} has learned the rows of {name} already",
                pointer=f"/datasets/{i}",
            )


def _base(session: Session, model: Model, number: int | None) -> Version | None:
    if number is None:
        return versions.newest_untainted(session, model.id)
    base = versions.by_number(session, model, number, pointer="/base", replaced=True)
    taint.refuse_tainted(session, base, pointer="/base")
    return versions.usable(session, model, number, pointer="/base")


def _check_untainted(session: Session, model: Model) -> None:
    """Raise where the model has versions and none to build on: each contains erased rows."""
    if versions.any_ready(session, model.id):
        raise VersionTainted(
            "every version contains erased rows, and no forget job is queued; try again later"
        )


def _check_method(ground: Ground, method: Method[Any], something_queued: bool) -> None:
    model, base = ground.model, ground.base
    if Task(model.task) not in method.tasks:
        raise UnsupportedTask(f"{method.name} does not serve task {model.task}", pointer="/method/name")
    network = model.network["name"]
    if method.trains_network:
        if network == features.IDENTITY:
            raise MissingData(
                f"{method.name} trains a network; this model's '{network}' has nothing to train",
                pointer="/method/name",
            )
        if base is not None:
            raise MissingData(
                f"{method.name} trains the first version of a model; version {base.number} exists",
                pointer="/method/name",
            )
    elif base is None and features.frozen_source(model) is None and not something_queued:
        raise MissingData(
            f"{method.name} needs a trained network; '{network}' of this model has no weights yet: "
            "create the model with weights, or teach a first version by a method that trains",
            pointer="/method/name",
        )


def _check_knowledge(
    session: Session, ground: Ground, method: Method[Any], memory: int, something_queued: bool
) -> None:
    """What the method needs to know of the base, and of the memory that there is."""
    model, base = ground.model, ground.base
    if not ground.datasets and not (method.statistics or method.remakes_head):
        raise MissingData(f"{method.name} needs rows: name datasets", pointer="/datasets")
    if not ground.datasets and base is None and not something_queued:
        raise MissingData("the model has no version to make another head from", pointer="/datasets")
    if base is not None:
        coverage.check_rows_known(session, base)
    if method.statistics:
        heads.check_memory(method.memory, heads.width(model), memory, pointer="/method/name")
        if base is not None:
            coverage.check(session, base)


def _check_rows(datasets: Sequence[Dataset]) -> None:
    for i, row in enumerate(datasets):
        if not row.train_rows:
            name = ids.encode("dst", row.id)
            raise TooFewSamples(f"{name} has no rows of split train to learn from", pointer=f"/datasets/{i}")


def _labels(datasets: Sequence[Dataset], out: Mapping[str, datetime | None]) -> dict[str, str]:
    """The labels of train rows, each with the pointer of the first dataset that brings it.

    Without the classes that a forget request has named: their rows are left out. A dataset that was sent
    after such a class was erased brings its label again, and is refused for it.
    """
    labels: dict[str, str] = {}
    seen: dict[str, str] = {}
    for i, row in enumerate(datasets):
        for label, counts in row.classes.items():
            erased_at = out.get(label)
            if label in out and (erased_at is None or row.created_at <= erased_at):
                continue
            if counts.get("train"):
                labels.setdefault(label, f"/datasets/{i}")
                other = seen.setdefault(classes.name_key(label), label)
                if other != label:
                    raise ValidationFailed(
                        f"labels {other!r} and {label!r} look alike but differ", pointer=f"/datasets/{i}"
                    )
    if not labels:
        raise TooFewSamples(
            "no train row of these datasets that may be used has a label", pointer="/datasets"
        )
    return labels


def _class_names(session: Session, base: Version | None) -> set[str]:
    if base is None:
        return set()
    return {entry.name for entry in versions.class_map(session, base.id)}


def request_of(body: UpdateCreate, *, may_promote: bool) -> dict[str, Any]:
    """What the job of an update keeps of its body."""
    return {
        "method": body.method.model_dump(mode="json"),
        "datasets": [id.hex for id in body.datasets],
        "base": body.base,
        "alias": body.alias,
        "evaluation": body.evaluation.hex if body.evaluation else None,
        "on_conflict": body.on_conflict,
        "seed": body.seed,
        "may_promote": may_promote,
    }


def roles(ground: Ground, selects: bool) -> list[tuple[UUID, str]]:
    """What an update does with each dataset that it reads."""
    roles = [(row.id, "train") for row in ground.datasets]
    if ground.evaluation is not None:
        roles.append((ground.evaluation.id, "evaluate"))
        if selects:
            roles.append((ground.evaluation.id, "select"))
    return roles
