"""Whether the network under a version was trained on the erased rows, as far as the service can know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from uuid import UUID

from app.tables import Model

LearnedBy = Callable[[UUID], Mapping[UUID, frozenset[int]]]


def of(
    model: Model, source: str, gone: Mapping[UUID, Collection[int]], learned_by: LearnedBy
) -> dict[str, str]:
    """`extractor_trained_on_subject` of a version: no, yes or unknown, and from what that is known.

    `source` is that of its feature map; `learned_by` gives the datasets that trained a version, and the
    positions that were left out of each.
    """
    kind, _, rest = source.partition(":")
    if kind == "version":
        edges = learned_by(UUID(hex=rest))
        used = any(
            position not in edges[dataset_id]
            for dataset_id, positions in gone.items()
            if dataset_id in edges
            for position in positions
        )
        return _said("yes" if used else "no", "the network was trained here, on rows that are on record")
    if kind == "upload":
        return _said("unknown", "the network was uploaded: what trained it is not on record")
    if model.input["kind"] == "vector":
        return _said("unknown", "vectors are read as they were sent: what made them is not on record")
    return _said("no", "rows are read as they were sent: there is no network")


def _said(answer: str, reason: str) -> dict[str, str]:
    return {"extractor_trained_on_subject": answer, "reason": reason}
