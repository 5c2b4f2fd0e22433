"""Uploads of weights on the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from app.ids import UploadId
from app.schemas.base import Answer
from app.tables import Upload


class TensorRead(Answer):
    """One tensor of the file."""

    dtype: str
    shape: list[int]


class UploadRead(Answer):
    """A safetensors file of weights, to be named as `network.weights` of a model."""

    id: UploadId
    name: str
    size_bytes: int
    tensors: dict[str, TensorRead] = Field(description="By name.")
    created_at: datetime

    @classmethod
    def of(cls, row: Upload) -> UploadRead:
        tensors = {name: TensorRead.model_validate(tensor) for name, tensor in row.tensors.items()}
        return cls(id=row.id, name=row.name, size_bytes=row.bytes, tensors=tensors, created_at=row.created_at)
