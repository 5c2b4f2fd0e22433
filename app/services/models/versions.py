"""Versions: finding and showing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import ids
from app.errors import NotFound, Purged, VersionNotReady
from app.methods.parts.digest import class_map_digest
from app.schemas.versions import LineageRead, VersionClassRead, VersionRead, VersionSummary
from app.service import Service
from app.services.erasure import ledger
from app.services.forget import estimate
from app.services.models import lineage, models
from app.services.paging import Page, Window
from app.tables import Centroid, FeatureMap, Model, ModelClass, Version, VersionClass


def path(model_id: UUID, number: int) -> str:
    """The URL of a version."""
    return f"/v1/models/{ids.encode('mdl', model_id)}/versions/{number}"


def by_number(
    session: Session, model: Model, number: int, pointer: str | None = None, *, replaced: bool = False
) -> Version:
    """A version of the model that was not purged; raises `NotFound` or `Purged`.

    With `replaced` also a purged one that a forget job has replaced: `taint.refuse_tainted` says by what.
    """
    row = session.scalar(select(Version).where(Version.model_id == model.id, Version.number == number))
    if row is None:
        raise NotFound(f"the model has no version {number}", pointer=pointer)
    if row.state == "purged":
        instead = replacement(session, row)
        if replaced and instead is not None:
            return row
        by = f" and replaced by version {instead.number}" if instead else ""
        raise Purged(
            f"version {number} ({ids.encode('ver', row.id)}) was purged{by}",
            pointer=pointer,
            related=[path(model.id, instead.number)] if instead else [],
        )
    return row


def replacement(session: Session, version: Version) -> Version | None:
    """The newest version that forget jobs put in the place of this one; None where none did."""
    chain = select(Version.id).where(Version.replaces_id == version.id).cte(recursive=True)
    chain = chain.union_all(select(Version.id).join(chain, Version.replaces_id == chain.c.id))
    newest = select(Version).join(chain, Version.id == chain.c.id).order_by(Version.number.desc())
    return session.scalar(newest.limit(1))


def first(session: Session, version: Version) -> Version:
    """The version that was made first in the place where this one stands now: it replaces none."""
    if version.replaces_id is None:
        return version
    columns = select(Version.id, Version.replaces_id)
    chain = columns.where(Version.id == version.replaces_id).cte(recursive=True)
    chain = chain.union_all(columns.join(chain, Version.id == chain.c.replaces_id))
    oldest = select(Version).join(chain, Version.id == chain.c.id).where(chain.c.replaces_id.is_(None))
    return session.scalars(oldest).one()


def in_its_place(session: Session, model_id: UUID, number: int) -> int:
    """The number of the version that stands in the place of a version now: its own, or its replacement's."""
    row = session.scalar(select(Version).filter_by(model_id=model_id, number=number))
    newest = None if row is None else replacement(session, row)
    return number if newest is None else newest.number


def any_ready(session: Session, model_id: UUID) -> bool:
    """Whether the model has a version at all, tainted or not."""
    ready = select(Version.id).where(Version.model_id == model_id, Version.state == "ready")
    return session.scalar(ready.limit(1)) is not None


def usable(session: Session, model: Model, number: int, pointer: str | None = None) -> Version:
    """A version of the model that can be opened: raises `VersionNotReady` for a retired one, with what
    replaced it, or else the newest that can."""
    row = by_number(session, model, number, pointer)
    if row.state != "ready":
        instead = replacement(session, row) or newest_untainted(session, model.id)
        choose = f"; choose {instead.number}" if instead else ""
        raise VersionNotReady(
            f"version {number} is {row.state}: what it stored was destroyed{choose}",
            pointer=pointer,
            related=[path(model.id, instead.number)] if instead else [],
        )
    return row


def newest_untainted(session: Session, model_id: UUID) -> Version | None:
    """The version that an update builds on by itself, and `latest` names."""
    return next((row for row, _ in untainted(session, model_id)), None)


def untainted(session: Session, model_id: UUID) -> list[tuple[Version, int]]:
    """Usable versions without erased rows, the newest first, each with the number that it stands for."""
    found = by_age(session, model_id)
    tainted = ledger.tainted(session, [row.id for row, _ in found])
    return [(row, number) for row, number in found if row.id not in tainted]


def by_age(session: Session, model_id: UUID) -> list[tuple[Version, int]]:
    """Usable versions, the newest first. What a forget job put in the place of another is as old as that one,
    whose number stands beside it, whatever number it has itself."""
    rows = session.scalars(select(Version).filter_by(model_id=model_id, state="ready")).all()
    replacing = select(Version.id, Version.replaces_id).where(
        Version.model_id == model_id, Version.replaces_id.is_not(None)
    )
    replaced = {id: old for id, old in session.execute(replacing) if old is not None}
    numbers = {
        id: n for id, n in session.execute(select(Version.id, Version.number).filter_by(model_id=model_id))
    }
    found = []
    for row in rows:
        first = row.id
        while first in replaced:
            first = replaced[first]
        found.append((row, numbers[first]))
    return sorted(found, key=lambda one: (one[1], one[0].number), reverse=True)


def latest(session: Session, model_id: UUID) -> Version | None:
    """What `latest` names: the newest untainted version; while there is none, the newest that is ready, and
    whether that one answers is a matter of the model's `on_taint`."""
    return newest_untainted(session, model_id) or next((row for row, _ in by_age(session, model_id)), None)


def class_map(session: Session, version_id: UUID) -> list[VersionClassRead]:
    """The classes of a version, in the order of its head's rows: the bytes of their names."""
    rows = session.execute(
        select(ModelClass.id, ModelClass.name, Centroid.count)
        .join(VersionClass, VersionClass.class_id == ModelClass.id)
        .outerjoin(Centroid, Centroid.id == VersionClass.centroid_id)
        .where(VersionClass.version_id == version_id)
    )
    found = [VersionClassRead(id=id, name=name, count=count) for id, name, count in rows]
    return sorted(found, key=lambda entry: entry.name.encode())


def read_one(service: Service, tenant_id: UUID, model_id: UUID, number: int) -> VersionRead:
    """Everything about a version of a tenant's model."""
    with service.db.read() as session:
        return read(service, session, models.get(session, tenant_id, model_id), number)


def lineage_of(service: Service, tenant_id: UUID, model_id: UUID, number: int) -> LineageRead:
    """Ancestors, descendants and datasets of a version."""
    with service.db.read() as session:
        return lineage.read(session, by_number(session, models.get(session, tenant_id, model_id), number))


def browse(service: Service, tenant_id: UUID, model_id: UUID, page: Page[int]) -> Window[VersionSummary]:
    """Versions of a model by number, purged ones included."""
    with service.db.read() as session:
        return _browse(session, models.get(session, tenant_id, model_id), page)


def read(service: Service, session: Session, model: Model, number: int) -> VersionRead:
    """Everything about a version; digests come from its key object."""
    row = by_number(session, model, number)
    numbers = _numbers(session, [row.parent_id, row.replaces_id])
    replaced_by = _replaced_by(session, [row.id])
    known = class_map(session, row.id)
    digests = {} if row.state == "retired" else service.vault.key(row.key_id).digests
    return VersionRead(
        id=row.id,
        model=model.id,
        number=row.number,
        parent=numbers.get(row.parent_id),
        replaces=numbers.get(row.replaces_id),
        replaced_by=replaced_by.get(row.id),
        job=row.job_id,
        state=row.state,
        tainted=bool(ledger.tainted(session, [row.id])),
        exactly_removable=estimate.removable(session, row),
        method={"name": row.method, "params": row.params},
        seed=row.seed,
        classes=known,
        class_map_digest=class_map_digest([c.id.bytes for c in known], [c.name for c in known]),
        datasets=lineage.datasets(session, row.id),
        metrics=row.metrics,
        report=row.report,
        digests=_named(digests, row),
        width=session.get_one(FeatureMap, row.feature_map_id).width,
        ledger_sequence=row.ledger_sequence,
        seconds=row.seconds,
        created_at=row.created_at,
    )


def _browse(session: Session, model: Model, page: Page[int]) -> Window[VersionSummary]:
    query = select(Version).where(Version.model_id == model.id)
    if page.after is not None:
        query = query.where(Version.number > page.after)
    rows = list(session.scalars(query.order_by(Version.number).limit(page.size + 1)))
    shown = rows[: page.size]
    tainted = ledger.tainted(session, [row.id for row in shown])
    numbers = _numbers(session, [row.parent_id for row in shown])
    sizes = _sizes(session, [row.id for row in shown])
    replaced_by = _replaced_by(session, [row.id for row in shown])
    return Window(
        [
            VersionSummary(
                id=row.id,
                model=model.id,
                number=row.number,
                parent=numbers.get(row.parent_id),
                replaced_by=replaced_by.get(row.id),
                state=row.state,
                tainted=row.id in tainted,
                method={"name": row.method, "params": row.params},
                accuracy=row.metrics.get("accuracy"),
                classes=sizes.get(row.id, 0),
                created_at=row.created_at,
            )
            for row in shown
        ],
        more=len(rows) > page.size,
    )


def _numbers(session: Session, wanted: Iterable[UUID | None]) -> dict[UUID | None, int]:
    rows = session.execute(select(Version.id, Version.number).where(Version.id.in_({*wanted} - {None})))
    return {id: number for id, number in rows}


def _replaced_by(session: Session, wanted: Iterable[UUID]) -> dict[UUID | None, int]:
    """The number of the version that a forget job put in the place of each."""
    rows = session.execute(
        select(Version.replaces_id, Version.number).where(Version.replaces_id.in_(list(wanted)))
    )
    return {id: number for id, number in rows}


def _sizes(session: Session, wanted: Iterable[UUID]) -> dict[UUID, int]:
    rows = session.execute(
        select(VersionClass.version_id, func.count())
        .where(VersionClass.version_id.in_(list(wanted)))
        .group_by(VersionClass.version_id)
    )
    return {id: count for id, count in rows}


def _named(digests: Mapping[str, str], row: Version) -> dict[str, str]:
    """The digests of a version under names, not under ids of files."""
    names = {row.file_id.hex: "file"}
    if row.statistics_file_id:
        names[row.statistics_file_id.hex] = "statistics_file"
    return {names.get(name, name): value for name, value in digests.items()}
