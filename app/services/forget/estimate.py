"""What an erasure would cost, from what versions took when they were made, and how much could be exact."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.forget import ways
from app.services.forget.classes_left import Labels
from app.services.forget.closure import Closure, Touched
from app.services.forget.ways import Way
from app.services.models import heads
from app.tables import Dataset, Model, Sample, SampleSubject, Version, VersionDataset

JOB = 0.3  # seconds of a job beside its versions: claim, verification, publication
PURGE = 0.5  # of the purge beside its files
FILE = 0.03  # of one file written anew under a new key
SOLVE = 0.5  # of a head of width 2,048, its refinement included; grows as the cube
READ = 2e-8  # of one feature of one row that is read
AT_ONCE = 1_000


@dataclass(frozen=True)
class Cost:
    """How a version would be made clean, and the seconds that takes."""

    way: Way
    seconds: float


def of_model(
    session: Session,
    model: Model,
    line: Iterable[Touched],
    closure: Closure,
    classes: Collection[UUID],
    labels: Labels,
    asked: str,
) -> dict[UUID, Cost]:
    """The cost of each version that would be replaced, those that are ready, by the method `asked` for."""
    found = {}
    for touched in line:
        version = touched.version
        if version.state == "ready":
            way = ways.of(
                session, model, version, closure.rows, measured=labels.silent, classes=classes, labels=labels
            )
            way = ways.insisted(way, [asked])
            found[version.id] = Cost(way, round(_seconds(session, model, version, way), 3))
    return found


def purge(closure: Closure) -> float:
    """Seconds of the purge: files of rows and features, and those of the versions that are replaced."""
    files = sum(one.shards + one.features for one in closure.datasets)
    return PURGE + FILE * (files + 2 * sum(map(len, closure.versions.values())))


def not_exact(closure: Closure, costs: Mapping[UUID, Cost]) -> set[UUID]:
    """Datasets whose rows no version could lose exactly now: they are not stored, and a version that used
    them could only be withdrawn."""
    gone = {one.dataset.id for one in closure.datasets if one.dataset.deleted_at is not None}
    dropped = any(cost.way.kind == "drop" for cost in costs.values())
    return gone if dropped else set()


def removable(session: Session, version: Version) -> float | None:
    """The share of the rows that a version learned which it could lose exactly now: those that are stored.
    None for one that came from outside or learned no rows.

    A network that was trained here is trained again from all that is left, so that of its rows none can go
    exactly once some are not stored any more.
    """
    edges = session.execute(
        select(VersionDataset.dataset_id, VersionDataset.rows, Dataset.deleted_at)
        .join(Dataset, Dataset.id == VersionDataset.dataset_id)
        .where(VersionDataset.version_id == version.id, VersionDataset.role == "train")
    ).all()
    total = sum(rows for _, rows, _ in edges)
    if not total:
        return None
    lost = {id for id, _, deleted_at in edges if deleted_at is not None}
    trainer = ways.trainer_of(session, version)
    if trainer is not None:
        taught = set(
            session.scalars(select(VersionDataset.dataset_id).filter_by(version_id=trainer.id, role="train"))
        )
        lost |= taught if taught & lost else set()
    return sum(rows for id, rows, _ in edges if id not in lost) / total


def targets_found(
    session: Session, tenant_id: UUID, targets: Collection[str], datasets: Collection[UUID] | None = None
) -> set[str]:
    """Those of the targets that name a row, in whatever dataset or in one of these."""
    found = {target for target in targets if target.startswith("class:") and datasets is None}
    for target in targets:
        if target.startswith("row:") and (datasets is None or UUID(hex=target.split(":")[1]) in datasets):
            found.add(target)
    for kind, table, column in (
        ("subject:", SampleSubject, SampleSubject.subject_digest),
        ("sample:", Sample, Sample.sample_digest),
    ):
        digests = sorted(one.removeprefix(kind) for one in targets if one.startswith(kind))
        for at in range(0, len(digests), AT_ONCE):
            query = (
                select(column)
                .join(Dataset, Dataset.id == table.dataset_id)
                .where(table.tenant_id == tenant_id, column.in_(digests[at : at + AT_ONCE]))
                .where(~Dataset.arriving)
            )
            if datasets is not None:
                query = query.where(table.dataset_id.in_(datasets))
            found |= {f"{kind}{digest}" for digest in session.scalars(query.distinct())}
    return found


def _seconds(session: Session, model: Model, version: Version, way: Way) -> float:
    if way.kind == "drop":
        return 0.0
    if way.kind == "retrain":
        return _line(session, version)
    width = heads.width(model)
    solve = SOLVE * (width / 2048) ** 3 * max(way.steps, 1) + READ * width * way.reads_rows
    return solve + (version.seconds if way.kind == "replay" else 0.0)


def _line(session: Session, version: Version) -> float:
    """Seconds that a version took, from the training of its network, or its first rows, on."""
    trainer, at, seconds = ways.trainer_of(session, version), version, version.seconds
    while at.parent_id is not None and (trainer is None or at.id != trainer.id):
        at = session.get_one(Version, at.parent_id)
        seconds += at.seconds
    return seconds
