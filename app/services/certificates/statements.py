"""What a certificate says of its own limits: copies that left, what was not reached, what ends later."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from app import ids
from app.service import Service
from app.tables import Export, ForgetRequest

Json = dict[str, Any]


def exports(left: Iterable[Export]) -> list[Json]:
    """What left with the erased rows in it, and for whom: copies that the service cannot reach."""
    return [
        {
            "id": ids.encode("exp", row.id),
            "at": time(row.created_at),
            "version": row.version_id and ids.encode("ver", row.version_id),
            "dataset": row.dataset_id and ids.encode("dst", row.dataset_id),
            "recipient": row.recipient,
            "by": row.actor,
        }
        for row in left
    ]


def uncovered(request: ForgetRequest, versions: list[Json], left: list[Json]) -> list[str]:
    """What the erasure does not reach, in sentences."""
    found = ["Rows that carry none of the identifiers that were named cannot be found by them."]
    if request.scope != "class":
        found.append(
            "Keyed digests of what was named stay in the ledger, so that it is refused when it comes again."
        )
    if request.models is not None:
        found.append(
            "Only the models that the request names were cleaned: stored rows and other models are as before."
        )
    if left:
        copies = "1 copy" if len(left) == 1 else f"{len(left)} copies"
        found.append(f"{copies} had left before: the recipients are listed and must act themselves.")
    if any(_extractor(version) != "no" for version in versions):
        found.append(
            "Networks that were not trained here may have seen what was erased; the claim is about what was "
            "learned from vectors and weights as they were sent."
        )
    if any(_is_iterative(version) for version in versions):
        found.append(
            "What is computed iteratively has the same bytes on one platform; on another the last places may "
            "differ."
        )
    if any(version["replacing"] is None for version in versions):
        found.append("Versions of which nothing usable was left were withdrawn without one in their place.")
    return found


def _extractor(version: Json) -> str:
    network = version["replacing"]["network"] if version["replacing"] else version["network_before"]
    return str(network["extractor_trained_on_subject"])


def _is_iterative(version: Json) -> bool:
    """Whether the version in its place, or a network that was trained again for it, is no closed form."""
    if version["replacing"] is None:
        return False
    method = version["replacing"]["recipe"]["method"]
    return version["way"] == "retrain" or method["params"].get("solver") in ("svm", "softmax")


def residuals(service: Service, session: Session, now: datetime) -> list[Json]:
    """Copies outside the service's reach that end by themselves, each with its last day."""
    backups = service.settings.backups
    found = []
    if backups.keep_days:
        what = "Backups from before the purge hold older rows of the database, and files without their keys."
        found.append({"what": what, "until": time(now + timedelta(days=backups.keep_days))})
    if session.get_bind().dialect.name == "postgresql":
        what = (
            "PostgreSQL keeps deleted rows (ids, keyed digests, values whose keys are destroyed, what was "
            "measured on destroyed versions) as dead tuples and in its write-ahead log until they are "
            "vacuumed and recycled."
        )
        found.append({"what": what, "until": time(now + timedelta(days=backups.wal_days))})
    return found


def time(value: datetime) -> str:
    """As every time in a certificate is written: UTC, microseconds, Z."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
