"""Predictions: rows in, classes out. The only route that waits for a thread other than its own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from app.api.body import read_body
from app.api.deps import Reader, parse
from app.api.problems import problems
from app.config import Limits
from app.errors import (
    ArtifactCorrupt,
    BodyTooLarge,
    DimensionMismatch,
    InvalidRequest,
    NonFinite,
    NotFound,
    Purged,
    UnsafeFormat,
    UnsupportedMedia,
    ValidationFailed,
    VersionNotReady,
    VersionTainted,
)
from app.ids import ModelId
from app.schemas.base import VersionNumber
from app.schemas.predict import AliasOrLatest, PredictCreate, PredictOptions, PredictRead, TopK
from app.services.predictions.inputs import read_npy
from app.services.predictions.json_rows import split_rows
from app.services.predictions.predict import SMALL, Ask, Predictor
from app.services.predictions.turns import Steps, at_once

router = APIRouter(tags=["predictions"])

JSON, NPY = "application/json", "application/x-npy"
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": PredictCreate.model_json_schema()},
            NPY: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


async def _predictor(request: Request) -> Predictor:
    predictor: Predictor = request.app.state.predictor
    return predictor


@router.post(
    "/models/{model}/predict",
    operation_id="predictions_create",
    response_model=PredictRead,
    openapi_extra=BODY,
    responses=problems(
        ArtifactCorrupt,
        BodyTooLarge,
        DimensionMismatch,
        NonFinite,
        NotFound,
        Purged,
        UnsafeFormat,
        UnsupportedMedia,
        ValidationFailed,
        VersionNotReady,
        VersionTainted,
    ),
)
async def predict(
    request: Request,
    model: ModelId,
    caller: Reader,
    predictor: Annotated[Predictor, Depends(_predictor)],
    alias: Annotated[AliasOrLatest | None, Query(description="With .npy: as the field of the JSON.")] = None,
    version: Annotated[
        VersionNumber | None, Query(description="With .npy: as the field of the JSON.")
    ] = None,
    top_k: Annotated[TopK | None, Query(description="With .npy: as the field of the JSON.")] = None,
) -> Response:
    """Classify rows by alias or version; it changes nothing.

    The body is JSON, or one `.npy` array with rows first and the options as query fields.
    """
    options = {"alias": alias, "version": version, "top_k": top_k}
    given = {name: value for name, value in options.items() if value is not None}
    media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    limits: Limits = request.app.state.service.settings.limits
    body = await read_body(request, limits.predict_bytes)
    if media == NPY:
        ask = _checked(given)
        answer = await predictor.predict(caller, model, at_once(lambda: _npy(body, ask)), len(body))
    elif media == JSON:
        if given:
            raise InvalidRequest("with a JSON body the options are its fields", pointer=next(iter(given)))
        answer = await predictor.predict(caller, model, _json(body, limits.predict_rows), len(body))
    else:
        raise UnsupportedMedia(f"inputs come as {JSON} or {NPY}")
    return Response(answer, media_type=JSON)


def _json(body: bytes, most: int) -> Steps[Ask]:
    """A large body is read some rows at a time; what is unusual in it, as a whole."""
    found = (yield from split_rows(body, most)) if len(body) > SMALL else None
    sent = parse(PredictCreate, body if found is None else found[0])
    return Ask(sent.inputs if found is None else found[1], sent.alias, sent.version, sent.top_k)


def _npy(body: bytes, options: PredictOptions) -> Ask:
    return Ask(read_npy(body), options.alias, options.version, options.top_k)


def _checked(options: dict[str, Any]) -> PredictOptions:
    """The query fields together; each was checked alone."""
    try:
        return PredictOptions(**options)
    except ValidationError:
        raise ValidationFailed("name an alias or a version, not both", pointer="version") from None
