"""A linear head brought in: a zip of `head.safetensors` and `head.json` becomes version 1 of a model."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from uuid import UUID

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ids, json_keys
from app.errors import (
    AppError,
    BodyTooLarge,
    ClassNameConflict,
    DimensionMismatch,
    Fault,
    HasVersions,
    InUse,
    InvalidRequest,
    NonFinite,
    TooFewSamples,
    UnsafeFormat,
    UnsupportedTask,
    ValidationFailed,
)
from app.methods.base import Head, Snapshot, Task
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.grid import LIMIT, unit
from app.schemas.artifacts import HeadSpec
from app.schemas.faults import in_words
from app.schemas.models import GRID
from app.schemas.versions import VersionRead
from app.service import Caller, Service
from app.services import jobs
from app.services.callers.idempotency import Once, Replay
from app.services.datasets import features
from app.services.erasure import ledger
from app.services.models import classes, heads, models, publish, snapshots, versions
from app.services.models.publish import Draft
from app.tables import Model, Version
from app.vault import new_key

MEMBERS = ("head.json", "head.safetensors")
MOST_SCORE = 3e38
FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def import_head(
    service: Service, caller: Caller, model_id: UUID, body: bytes, once: Once | None = None
) -> VersionRead:
    """Publish a head as the first version of a model. Owns its transaction; a refusal leaves nothing."""
    spec, tensors = _unpack(body, service.settings.limits.import_bytes)
    with service.db.read() as session:
        model = models.get(session, caller.tenant_id, model_id)
    _check_model(model)
    snapshot = _snapshot(model, spec, tensors, service.settings.limits.classes)
    version_id, key_id = ids.new(), ids.new()
    saved = snapshots.save(service, snapshot, trained_network=False, key=new_key())
    service.vault.write_key(key_id, saved.key)
    try:
        with service.db.begin() as session:
            if once:
                once.begin(session)
            model = models.get(session, caller.tenant_id, model_id, lock=True)
            _check_first(session, model)
            if jobs.waiting_on(session, model.id):
                raise InUse("an update of the model is queued or running; wait for it, or cancel it")
            draft = Draft(
                id=version_id,
                model_id=model.id,
                tenant_id=model.tenant_id,
                snapshot=snapshot,
                saved=saved,
                key_id=key_id,
                method="import",
                params={"normalise": spec.normalise},
                feature_map_id=features.map_of(session, model, None),
                ledger_sequence=ledger.sequence(session),
            )
            version = publish.insert(service, session, model, draft, caller.actor)
            answer = versions.read(service, session, model, version.number)
            answer = answer.model_copy(update={"digests": {}})  # they go with the key: no answer keeps one
            if once:
                once.finish(
                    session,
                    status=201,
                    body=answer.model_dump(mode="json"),
                    headers={"Location": versions.path(model.id, version.number)},
                    resource_id=version.id,
                )
    except (AppError, Replay):  # before the commit: no row names the bytes
        service.vault.destroy(key_id, *saved.files)
        raise
    return answer


def _unpack(body: bytes, limit: int) -> tuple[HeadSpec, Mapping[str, torch.Tensor]]:
    """The two members; nothing is expanded before its size is known."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
    except zipfile.BadZipFile:
        raise InvalidRequest("the body is not a zip") from None
    with archive:
        members = {info.filename: info for info in archive.infolist()}
        if sorted(members) != list(MEMBERS) or len(archive.infolist()) != len(MEMBERS):
            raise InvalidRequest("an import holds head.json and head.safetensors and nothing else")
        if sum(info.file_size for info in members.values()) > limit:
            raise BodyTooLarge(f"the import expands to more than {limit} bytes")
        try:
            described, weights = (archive.read(name) for name in MEMBERS)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError):
            raise InvalidRequest("the zip is damaged or in a form that is not supported") from None
    return _spec(described), _tensors(weights)


def _spec(raw: bytes) -> HeadSpec:
    json_keys.check(raw, "head.json")
    try:
        return HeadSpec.model_validate_json(raw)
    except ValidationError as error:
        faults = [
            Fault("/".join(["/head.json", *map(str, found["loc"])]), found["type"], in_words(found))
            for found in error.errors()
        ]
        raise ValidationFailed("head.json is not valid: see errors", errors=faults) from None


def _tensors(raw: bytes) -> Mapping[str, torch.Tensor]:
    try:
        tensors = parse(raw)
    except SafetensorError:
        raise UnsafeFormat("head.safetensors is not safetensors") from None
    if sorted(tensors) != ["bias", "weight"]:
        raise ValidationFailed("head.safetensors holds `weight` and `bias`", pointer="/head.safetensors")
    for name, tensor in tensors.items():
        pointer = f"/head.safetensors/{name}"
        if tensor.dtype not in FLOATS:
            raise ValidationFailed(f"`{name}` is not floating point", pointer=pointer)
        if not torch.isfinite(tensor.float()).all():
            raise NonFinite(f"`{name}` has a value that is no finite float32", pointer=pointer)
    return tensors


def _check_model(model: Model) -> None:
    if model.task != Task.CLASSIFICATION:
        raise UnsupportedTask(f"a head is imported into a classifier; the model's task is {model.task}")
    if features.frozen_source(model) is None:
        raise ValidationFailed(
            "a head needs features: the model's network is `identity` or has weights of an upload",
            pointer="/network",
        )


def _check_first(session: Session, model: Model) -> None:
    number = session.scalar(select(Version.number).filter_by(model_id=model.id).limit(1))
    if number is not None:
        raise HasVersions("the model has versions; a head is imported into a model that has none")


def _snapshot(
    model: Model, spec: HeadSpec, tensors: Mapping[str, torch.Tensor], most_classes: int
) -> Snapshot:
    weight, bias = tensors["weight"].float(), tensors["bias"].float()
    width = features.width(model)
    if weight.dim() != 2 or weight.shape[1] != width:
        raise DimensionMismatch(
            f"`weight` has shape {list(weight.shape)}; the model has {width} features a row",
            pointer="/head.safetensors/weight",
        )
    names = spec.classes
    if len(names) > most_classes:
        raise ValidationFailed(f"more than {most_classes} classes", pointer="/head.json/classes")
    if not len(names) == len(weight) == bias.numel() or bias.dim() != 1:
        raise DimensionMismatch(
            f"one row a class: {len(names)} classes, weight {list(weight.shape)}, bias {list(bias.shape)}",
            pointer="/head.json/classes",
        )
    if len(names) < 2:
        raise TooFewSamples("a classifier has at least two classes", pointer="/head.json/classes")
    _check_names(names)
    grid = GRID.validate_python(model.grid)
    longest = 1.0 if spec.normalise else unit(grid) * LIMIT
    if not (weight.double().abs().sum(dim=1) * longest + bias.double().abs()).max() < MOST_SCORE:
        raise ValidationFailed("scores could be no finite float32", pointer="/head.safetensors/weight")
    order = sorted(range(len(names)), key=lambda i: names[i].encode())
    return Snapshot(
        input=InputSpec.model_validate(model.input),
        grid=grid,
        network=NetworkSpec.model_validate(model.network),
        classes=tuple(names[i] for i in order),
        head=Head(weight[order].contiguous(), bias[order].contiguous(), spec.normalise),
        **heads.of_model(model),
    )


def _check_names(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for i, name in enumerate(names):
        other = seen.get(classes.name_key(name))
        if other is not None:
            raise ClassNameConflict(f"{name!r} and {other!r} look alike", pointer=f"/head.json/classes/{i}")
        seen[classes.name_key(name)] = name
