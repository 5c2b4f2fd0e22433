"""Classes of a model: stable ids, display names, and which names are too much alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from uuid import UUID

from confusable_homoglyphs.confusables import confusables_data
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import ClassNameConflict, Fault, NotFound
from app.schemas.models import ClassRead
from app.service import Service
from app.services.models import models
from app.tables import Model, ModelClass, Version, VersionClass


def name_key(name: str) -> str:
    """What two names that look alike have in common: NFC, case folded, look-alikes as one character.

    ASCII characters stand for themselves, so a model of characters may have 0 and O, 1 and l; every other
    character becomes the one that Unicode's table of confusables has for it.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
    folded = folded.replace("i\u0307", "i").replace("j\u0307", "j")  # a second dot over a dot
    return "".join(_prototype(character) for character in folded if not _is_invisible(character))


def _is_invisible(character: str) -> bool:
    """Joiners, zero-width spaces and variation selectors."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


@lru_cache(maxsize=4096)
def _prototype(character: str) -> str:
    """The character that stands for all that look like this one. The table has hubs and their look-alikes."""
    if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>", "<font>")):
        character = unicodedata.normalize("NFKC", character).casefold()
    if character.isascii():
        return character
    near = [str(entry["c"]) for entry in confusables_data.get(character, ())]
    if len(near) != 1:
        return character
    hub = near[0]
    if hub.isascii() or len(confusables_data.get(hub, ())) > 1:
        return hub.casefold()
    return min(character, hub)


def byte_order(names: Iterable[str]) -> tuple[str, ...]:
    """Label keys in the order of their UTF-8 bytes, in which classes stand everywhere."""
    return tuple(sorted(set(names), key=lambda name: name.encode()))


def of_model(session: Session, model_id: UUID) -> list[ModelClass]:
    """Every class that the model ever had, by creation; of one version in the order of its class map."""
    found = session.scalars(select(ModelClass).where(ModelClass.model_id == model_id))
    return sorted(found, key=lambda row: (row.created_at, row.name.encode()))


def browse(service: Service, tenant_id: UUID, model_id: UUID) -> list[ClassRead]:
    """Every class of a model, with the versions that know it."""
    with service.db.read() as session:
        model = models.get(session, tenant_id, model_id)
        numbers: dict[UUID, list[int]] = {}
        rows = session.execute(
            select(VersionClass.class_id, Version.number)
            .join(Version, Version.id == VersionClass.version_id)
            .where(Version.model_id == model.id)
            .order_by(Version.number)
        )
        for class_id, number in rows:
            numbers.setdefault(class_id, []).append(number)
        return [
            ClassRead(
                id=row.id,
                name=row.name,
                retired=row.retired_at is not None,
                versions=numbers.get(row.id, []),
                created_at=row.created_at,
            )
            for row in of_model(session, model.id)
        ]


def read(service: Service, tenant_id: UUID, model_id: UUID, class_id: UUID) -> ClassRead:
    """One class; raises `NotFound`."""
    for found in browse(service, tenant_id, model_id):
        if found.id == class_id:
            return found
    raise NotFound(f"the model has no class {ids.encode('cls', class_id)}")


def check_names(
    session: Session, model: Model, names: Mapping[str, str], *, extend: bool, erased: Collection[str] = ()
) -> dict[str, ModelClass]:
    """The existing classes among `names` (label key -> pointer of the request that brings it).

    Raises `ClassNameConflict` with the existing id for a name that looks like another class's, for one that
    was retired or is `erased`, and, unless `extend`, for one that exists.
    """
    existing = {row.name_key: row for row in of_model(session, model.id)}
    known: dict[str, ModelClass] = {}
    faults: list[tuple[Fault, UUID]] = []
    for name, pointer in names.items():
        row = existing.get(name_key(name))
        if row is None:
            continue
        id = ids.encode("cls", row.id)
        if row.name != name:
            message = f"class {name!r} looks like {row.name!r}, which is class {id}"
            faults.append((Fault(pointer, "class-name-conflict", message), row.id))
        elif row.retired_at is not None or name in erased:
            message = f"class {name!r} was retired; its name stays reserved for {id}"
            faults.append((Fault(pointer, "class-name-conflict", message), row.id))
        elif not extend:
            message = f"class {name!r} exists as {id}; send on_conflict=extend to add rows to it"
            faults.append((Fault(pointer, "class-name-conflict", message), row.id))
        else:
            known[name] = row
    if faults:
        base = f"/v1/models/{ids.encode('mdl', model.id)}/classes/"
        raise ClassNameConflict(
            faults[0][0].message,
            errors=[fault for fault, _ in faults],
            related=[base + ids.encode("cls", id) for _, id in faults],
        )
    return known


def ensure(session: Session, model: Model, names: Iterable[str]) -> dict[str, ModelClass]:
    """The class of each name, created where it is new: inside a publication, under the model's lock."""
    existing = {row.name: row for row in of_model(session, model.id)}
    now = clock(session)
    for name in byte_order(names):
        if name not in existing:
            row = ModelClass(
                tenant_id=model.tenant_id,
                model_id=model.id,
                name=name,
                name_key=name_key(name),
                retired_at=None,
                created_at=now,
            )
            session.add(row)
            existing[name] = row
    session.flush()
    return {name: existing[name] for name in byte_order(names)}
