"""How a version is made clean of rows: the cheapest way that equals training on what remains, and its cost.

Every way is exact. A head that is a function of sums loses the rows' contribution and is solved again;
one that saw the rows themselves is learned again from its step's own rows; a network that saw them is trained
again, and everything on it. Where nothing usable would be left, the version goes without a replacement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import methods
from app.methods.base import Method
from app.services.datasets import row_index
from app.services.erasure.ledger import Positions
from app.services.forget import classes_left
from app.services.forget.classes_left import Labels, Left
from app.tables import Centroid, Dataset, FeatureMap, Model, Version, VersionClass, VersionDataset

UNSTORED = "rows that would have to be read are not stored any more"
FEW = "fewer than two classes would be left"
UNREAD = "; which classes are left is known only when the rows that go are read"
UNSURE = "; whether two classes are left, without which it goes, is known only when the rows that go are read"
ELSEWHERE = "the rows themselves are not stored any more, all that stay are"

Kind = Literal["subtract", "replay", "retrain", "drop"]


@dataclass(frozen=True)
class Way:
    """What a forget job does to a version, and what that reads."""

    kind: Kind
    guarantee: Literal["exact"]
    reason: str  # a sentence for people
    reads_rows: int  # stored rows that it opens, those of the evaluation not counted
    steps: int  # heads or networks that are computed anew
    unstored: bool = False  # dropped for rows that are not stored any more, and for nothing else
    missing: Mapping[UUID, frozenset[int]] = field(default_factory=dict)  # those of them that are to go
    classes_gone: tuple[str, ...] = ()  # their names, of which no row would be left; where labels were given
    can_be_sent: bool = False  # `missing` are all that lack, and an index can tell them when they are sent
    refused: bool = False  # a request insists on `exact`, and only `retrain` would do


def of(
    session: Session,
    model: Model,
    version: Version,
    gone: Positions,
    *,
    measured: Positions | None = None,
    classes: Collection[UUID] = (),
    sent: Positions | None = None,
    labels: Labels | None = None,
) -> Way:
    """The way for a version that uses some of these rows, or knows some of these classes.

    `measured` are those of the rows known to be evaluation rows; without it a row of a dataset that the
    version learned from counts as learned. Rows of `classes` need not be among `gone`. `sent` are rows of
    deleted datasets that are at hand: they were sent again. With `labels` it says which classes go with
    their last row; a job that has the rows themselves finds that out as it takes them away.
    """
    edges = _edges(session, version.id)
    used = _used(edges, gone, "train", measured or {})
    lost = _rows_of_classes(session, version.id, classes)
    if not used and not lost:
        chooses = bool(_used(edges, gone, "select", {}))
        reason = "its parameters were chosen on the rows" if chooses else "it was only measured with the rows"
        return Way("subtract", "exact", reason, 0, int(chooses))
    method = methods.BY_NAME.get(version.method)
    left = None if labels is None else classes_left.of(session, version.id, used, lost.keys(), labels)
    if reason := _nothing_left(session, version, method, edges, used, lost, left):
        return Way("drop", "exact", reason, 0, 0)
    assert method is not None
    way = _cheapest(session, version, method, edges, used, lost, gone, measured, classes)
    if labels is not None and (reason := _no_step(session, version, way, edges, used, gone, classes, labels)):
        return Way("drop", "exact", reason, 0, 0)
    if version.statistics_file_id is not None or sum(map(len, used.values())) > sum(lost.values()):
        way = _with_what_is_stored(session, version, way, edges, used, sent or {})
    # otherwise a centroid goes by itself, without its rows
    return _saying_what_is_left(way, left)


def insisted(way: Way, asked: Collection[str]) -> Way:
    """The way where requests name a method: `retrain` makes everything anew, `exact` nothing of the kind.

    What only measured with the rows, or chose on them, has nothing to train again.
    """
    if "retrain" in asked and way.kind in ("subtract", "replay") and way.reads_rows:
        way = replace(way, kind="retrain", reason="the request asks for it")
    return replace(way, refused=way.kind == "retrain" and "exact" in asked)


def _cheapest(
    session: Session,
    version: Version,
    method: Method[Any],
    edges: list[VersionDataset],
    used: Mapping[UUID, frozenset[int]],
    lost: Mapping[UUID, int],
    gone: Positions,
    measured: Positions | None,
    classes: Collection[UUID],
) -> Way:
    """The way of a version of which something is left, if every row that it reads is stored."""
    count = max(sum(map(len, used.values())), sum(lost.values()))
    trainer = trainer_of(session, version)
    if trainer is not None and (
        trained_on(session, version, gone, measured) or _rows_of_classes(session, trainer.id, classes)
    ):
        rows, depth = _rows(edges) - count, _depth(session, version, trainer)
        return Way("retrain", "exact", "its network was trained on the rows", rows, depth)
    if is_function_of_sums(method):
        return Way("subtract", "exact", "its head is a function of sums over the rows", count, 1)
    own = max(_rows(edges) - _rows(_edges(session, version.parent_id)), 0)
    return Way("replay", "exact", "its head was fitted to the rows of its own update", count + own, 1)


def _no_step(
    session: Session,
    version: Version,
    way: Way,
    edges: list[VersionDataset],
    used: Mapping[UUID, frozenset[int]],
    gone: Positions,
    classes: Collection[UUID],
    labels: Labels,
) -> str:
    """Why the step that a way does again has too little to learn from; empty where it has enough."""
    if way.kind == "replay":
        before = {edge.dataset_id for edge in _edges(session, version.parent_id)}
        own = [edge for edge in edges if edge.role == "train" and edge.dataset_id not in before]
        none = own and all(len(used.get(edge.dataset_id, ())) >= edge.rows for edge in own)
        return "no row of the version's own update would be left" if none else ""
    trainer = trainer_of(session, version) if way.kind == "retrain" else None
    if trainer is None or trainer.parent_id is not None:
        return ""
    taken = learned(session, trainer, gone, labels.silent)
    left = classes_left.of(session, trainer.id, taken, classes, labels)
    return f"{FEW} to train the network on" if left is not None and left.most < 2 else ""


def learned(
    session: Session, version: Version, gone: Positions, measured: Positions | None = None
) -> dict[UUID, frozenset[int]]:
    """The rows among `gone` that a version learned from, those known to be `measured` not counted."""
    return _used(_edges(session, version.id), gone, "train", measured or {})


def may_lose_classes(session: Session, version: Version, gone: Positions) -> bool:
    """Whether a class of the version could lose its last row with these: only their labels can tell then."""
    left = classes_left.of(session, version.id, learned(session, version, gone), (), Labels())
    return left is not None and left.fewest < left.most


def _saying_what_is_left(way: Way, left: Left | None) -> Way:
    """The way, with the classes that go, and with what only the rows can tell."""
    if left is None or way.kind == "drop":
        return way
    unread = "" if left.fewest == left.most else UNREAD if left.fewest >= 2 else UNSURE
    return replace(way, reason=way.reason + unread, classes_gone=left.gone)


def is_function_of_sums(method: Method[Any]) -> bool:
    """Whether a method makes the same head from sums alone as from the rows."""
    return method.statistics or method.remakes_head


def trained_on(
    session: Session,
    version: Version,
    gone: Positions,
    measured: Positions | None = None,
    classes: Collection[UUID] = (),
) -> Version | None:
    """The version that trained the network of this one, if it learned some of these rows or classes."""
    trainer = trainer_of(session, version)
    if trainer is None:
        return None
    used = learned(session, trainer, gone, measured)
    return trainer if used or _rows_of_classes(session, trainer.id, classes) else None


def trainer_of(session: Session, version: Version) -> Version | None:
    """The version that trained the network of this one; none where the network was given."""
    kind, _, rest = session.get_one(FeatureMap, version.feature_map_id).source.partition(":")
    return session.get_one(Version, UUID(hex=rest)) if kind == "version" else None


def _nothing_left(
    session: Session,
    version: Version,
    method: Method[Any] | None,
    edges: list[VersionDataset],
    used: Mapping[UUID, frozenset[int]],
    lost: Mapping[UUID, int],
    left: Left | None,
) -> str:
    """Why the version goes without a replacement; empty where it does not."""
    if method is None or session.scalar(
        select(VersionClass.class_id).filter_by(version_id=version.id, centroid_id=None).limit(1)
    ):
        return "it was imported: what its head was made from is not known"
    if sum(map(len, used.values())) >= _rows(edges):
        return "no row that it learned from would be left"
    known = select(func.count()).select_from(VersionClass).filter_by(version_id=version.id)
    if lost and (session.scalar(known) or 0) - len(lost) < 2:
        return FEW
    return FEW if left is not None and left.most < 2 else ""


def _with_what_is_stored(
    session: Session,
    version: Version,
    way: Way,
    edges: list[VersionDataset],
    used: Mapping[UUID, frozenset[int]],
    sent: Positions,
) -> Way:
    """The way, or what is left to do where rows that it reads were in datasets that are deleted."""
    train = {edge.dataset_id: edge.rows for edge in edges if edge.role == "train"}
    away = select(Dataset.id).where(Dataset.id.in_(list(train)), Dataset.deleted_at.is_not(None))
    deleted = set(session.scalars(away))
    rest_is_stored = all(len(used.get(id, ())) >= train[id] for id in deleted)
    if way.kind == "retrain":
        return way if rest_is_stored else dropped(used)
    missing = {id: rows for id in deleted & used.keys() if (rows := used[id] - frozenset(sent.get(id, ())))}
    if not missing:
        return way
    if rest_is_stored:
        rows_left = sum(train.values()) - sum(map(len, used.values()))
        return Way("retrain", "exact", ELSEWHERE, rows_left, 1)
    told = row_index.comes(session, missing, version.feature_map_id) >= missing.keys()
    return dropped(missing, can_be_sent=told)


def dropped(missing: Positions, *, can_be_sent: bool = False) -> Way:
    """No way, for rows that are not stored any more."""
    plain = {id: frozenset(rows) for id, rows in missing.items() if rows}
    reason = UNSTORED + (": they can be sent again" if can_be_sent else "")
    return Way("drop", "exact", reason, 0, 0, unstored=True, missing=plain, can_be_sent=can_be_sent)


def _edges(session: Session, version_id: UUID | None) -> list[VersionDataset]:
    if version_id is None:
        return []
    return list(session.scalars(select(VersionDataset).where(VersionDataset.version_id == version_id)))


def _used(
    edges: list[VersionDataset], gone: Positions, role: str, measured: Positions
) -> dict[UUID, frozenset[int]]:
    """The rows among `gone` that these edges used in a role."""
    found = {}
    for edge in edges:
        if edge.role == role:
            positions = frozenset(gone.get(edge.dataset_id, ())) - frozenset(edge.left_out)
            if left := positions - frozenset(measured.get(edge.dataset_id, ())):
                found[edge.dataset_id] = left
    return found


def _rows(edges: list[VersionDataset]) -> int:
    return sum(edge.rows for edge in edges if edge.role == "train")


def _rows_of_classes(session: Session, version_id: UUID, classes: Collection[UUID]) -> dict[UUID, int]:
    """How many rows the version knows of each of these classes; without those that it does not know."""
    if not classes:
        return {}
    rows = session.execute(
        select(VersionClass.class_id, Centroid.count)
        .outerjoin(Centroid, Centroid.id == VersionClass.centroid_id)
        .where(VersionClass.version_id == version_id, VersionClass.class_id.in_(list(classes)))
    )
    return {id: count or 0 for id, count in rows}


def _depth(session: Session, version: Version, trainer: Version) -> int:
    """Versions from the one that trained the network to this one, both counted."""
    steps, at = 1, version
    while at.id != trainer.id and at.parent_id is not None:
        at = session.get_one(Version, at.parent_id)
        steps += 1
    return steps
