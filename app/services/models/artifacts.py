"""A version taken out: one zip of safetensors and JSON, and a row that says who took it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from safetensors.torch import save as dump
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import Forbidden
from app.methods.networks.spec import NetworkSpec
from app.schemas.artifacts import Artifact, ArtifactClass, ArtifactHead, ArtifactMethod
from app.service import Caller, Service
from app.services import zips
from app.services.callers import audit
from app.services.erasure import ledger
from app.services.models import models, snapshots, taint, versions
from app.services.models.snapshots import Loaded
from app.services.models.version_facts import NETWORK
from app.tables import Centroid, Export, Model, Version, VersionClass


@dataclass(frozen=True)
class Taken:
    """An artifact that was registered and may leave."""

    export_id: UUID
    name: str  # of the file: ids only
    parts: Iterator[bytes]


def export(service: Service, caller: Caller, model_id: UUID, number: int, recipient: str | None) -> Taken:
    """Open a version, register that it leaves, and give its zip. Owns its transactions.

    Whether it may leave is decided by the transaction that registers it, after its bytes were read.
    """
    with service.db.read() as session:
        model = models.get(session, caller.tenant_id, model_id)
        version = versions.by_number(session, model, number)
        allow(session, caller, model, version)
    loaded = snapshots.load(service, version.id, centroids=False)
    tensors = _tensors(loaded)
    described = _describe(model, version, loaded).model_dump_json(indent=2).encode()
    with service.db.begin() as session:
        model = models.get(session, caller.tenant_id, model_id)
        version = versions.by_number(session, model, number)
        allow(session, caller, model, version)
        export_id = register(
            session, caller, "version.exported", recipient, {"model": model.id, "version": version.id}
        )
    name = f"{ids.encode('mdl', model.id)}-{number}.zip"
    members = {"version.json": described, "version.safetensors": tensors}
    return Taken(export_id, name, zips.stream((name, zips.parts(raw)) for name, raw in members.items()))


def register(
    session: Session, caller: Caller, action: str, recipient: str | None, resources: Mapping[str, UUID]
) -> UUID:
    """Note who takes what, in the register of exports and in the audit chain; gives the export's id.

    `resources`: the `version`, and the `dataset` where its rows are taken.
    """
    export_id = ids.new()
    session.add(
        Export(
            id=export_id,
            created_at=clock(session),
            tenant_id=caller.tenant_id,
            version_id=resources["version"],
            dataset_id=resources.get("dataset"),
            actor=caller.actor,
            recipient=recipient,
        )
    )
    audit.record(
        session,
        tenant_id=caller.tenant_id,
        actor=caller.actor,
        action=action,
        resources={**resources, "export": export_id},
    )
    return export_id


def allow(session: Session, caller: Caller, model: Model, version: Version) -> None:
    """Raise where a version, or what it was made from, may not leave by this caller."""
    name = f"version {version.number}"
    taint.refuse_tainted(session, version)
    versions.usable(session, model, version.number)
    ledger.refuse_restricted(session, version)
    if not caller.may("admin") and _shows_few_rows(session, model, version):
        raise Forbidden(
            f"{name} has a class with fewer rows than min_centroid_rows, and its weights can show them: "
            "this needs an API key with scope admin"
        )


def _shows_few_rows(session: Session, model: Model, version: Version) -> bool:
    """Whether a class stands on so few rows that its row of the head may be one of them."""
    few = (
        select(VersionClass.class_id)
        .join(Centroid, Centroid.id == VersionClass.centroid_id)
        .where(VersionClass.version_id == version.id, Centroid.count < model.min_centroid_rows)
        .limit(1)
    )
    return session.scalar(few) is not None


def _tensors(loaded: Loaded) -> bytes:
    head = loaded.snapshot.head
    assert head is not None
    network = {NETWORK + name: tensor for name, tensor in loaded.snapshot.weights.items()}
    return dump({"head.weight": head.weight, "head.bias": head.bias, **network})


def _describe(model: Model, version: Version, loaded: Loaded) -> Artifact:
    snapshot = loaded.snapshot
    assert snapshot.head is not None
    named = zip(loaded.class_ids, snapshot.classes, strict=True)
    return Artifact(
        model=model.id,
        model_name=model.name,
        task=model.task,
        version=version.number,
        version_id=version.id,
        created_at=version.created_at,
        input=snapshot.input,
        grid=snapshot.grid,
        network=NetworkSpec.model_validate(model.network),
        expansion=snapshot.expansion if snapshot.head.expanded else None,
        head=ArtifactHead(normalise=snapshot.head.normalise),
        classes=[ArtifactClass(id=id, name=name) for id, name in named],
        method=ArtifactMethod(name=version.method, params=version.params),
        digests={"weights": loaded.key.digests["weights"], "class_map": loaded.class_map_digest},
    )
