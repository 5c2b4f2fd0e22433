"""What a version must reach before a job moves an alias to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from app.methods.parts.metrics import PerClass, accuracy_of, forgetting
from app.schemas.models import Gates


def evaluate(
    gates: Gates,
    metrics: Mapping[str, Any],
    known_before: Collection[str],
    aliased: PerClass | None = None,
) -> list[dict[str, Any]]:
    """One line per gate that is set and applies: its limit, the value measured, whether it holds.

    Old is what `known_before` has: the classes of the version that the alias names, or without one of the
    parent. Gates on old classes do not apply where there are none, nor those on new classes to a version that
    brings none. A gate whose value could not be measured does not hold. Forgetting is measured against
    `aliased`, the accuracy per class of the version that the alias names, or without one against the best
    of all versions before. A class that the aliased version knows and this one does not is forgotten whole.
    """
    now = metrics.get("per_class", {})
    new = [name for name in now if name not in known_before]
    has_old, has_new = bool(known_before), bool(new)
    forgotten = metrics.get("forgetting")
    if aliased is not None:
        forgotten = forgetting({name: now.get(name, 0.0) for name in aliased}, [aliased])
    lines = (
        ("min_old", gates.min_old, accuracy_of(metrics, known_before), has_old),
        ("min_new", gates.min_new, accuracy_of(metrics, new), has_new),
        ("max_forgetting", gates.max_forgetting, forgotten, has_old),
    )
    return [
        {"gate": name, "limit": limit, "value": value, "holds": _holds(name, limit, value)}
        for name, limit, value, applies in lines
        if applies and limit is not None
    ]


def _holds(name: str, limit: float, value: float | None) -> bool:
    if value is None:
        return False
    return value <= limit if name.startswith("max") else value >= limit
