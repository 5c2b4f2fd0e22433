"""A version made again from the rows it was learned from, by the code that learns: head and statistics.

Nothing that the version stored goes in. A head is a function of the rows of its last step and of sums over
the rows before it, so those are summed and the method of the last step runs. The network is given in the
form of its grid features, except to a method that trains it, which reads the rows as sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from app import methods
from app.methods.base import Context, Method, Rows, Snapshot, Split, Unfit
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.centroids import by_key, class_centroids
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import Grid
from app.methods.parts.learning import sums_of
from app.methods.parts.model_settings import Ridge, TargetGrid

GRID: TypeAdapter[Grid] = TypeAdapter(Grid)
RIDGE: TypeAdapter[Ridge] = TypeAdapter(Ridge)


class CannotReproduce(Exception):
    """What it would take is not there: rows, a method, a network; says which."""


@dataclass(frozen=True)
class Portion:
    """Some rows of one dataset, in the order of their positions."""

    x: NDArray[Any]  # (b, width) int16 on the grid, or rows as sent
    labels: NDArray[np.int64]  # (b,), indices into `names`, -1 for none
    names: tuple[str, ...]
    targets: NDArray[np.float64] | None
    step: NDArray[np.int32]  # (b,), the step that learned a row, -1 for none
    selected: NDArray[np.bool_]  # (b,), whether parameters were chosen on a row


Portions = Callable[[], Iterator[Portion]]
Chosen = Callable[[Portion], NDArray[np.bool_]]


def method_of(recipe: Mapping[str, Any]) -> Method[Any]:
    """The method of a recipe; raises `CannotReproduce` where this release has none of that name."""
    name = recipe["method"]["name"]
    if name not in methods.BY_NAME:
        raise CannotReproduce(f"no method is called {name}: what its head was made from is not on record")
    return methods.BY_NAME[name]


def made_again(recipe: Mapping[str, Any], portions: Portions, ctx: Context) -> Snapshot:
    """The version that these rows give. Raises `CannotReproduce`."""
    method, last = method_of(recipe), len(recipe["steps"])
    regression = recipe["target"] is not None
    earlier = _rows(portions, lambda p: (p.step >= 0) & (p.step < last), regression)
    own = _rows(portions, lambda p: p.step == last, regression)
    data = {Split.NEW: own}
    if Split.SELECT in method.may_use and recipe["method"]["params"].get("choose"):
        data[Split.SELECT] = _rows(portions, lambda p: p.selected, regression)
    params = method.params.model_validate(recipe["method"]["params"])
    ctx = replace(ctx, seed=int(recipe["seed"]))
    try:
        before = _before(_settings(recipe), method, earlier, ctx)
        return method.run(before, data, params, ctx).after
    except Unfit as error:
        raise CannotReproduce(f"the rows do not make a version: {error}") from None


def _settings(recipe: Mapping[str, Any]) -> Snapshot:
    """The model as it was created: nothing is known."""
    expansion, target = recipe["expansion"], recipe["target"]
    return Snapshot(
        input=InputSpec.model_validate(recipe["input"]),
        grid=GRID.validate_python(recipe["grid"]),
        network=NetworkSpec.model_validate(recipe["network"]),
        expansion=expansion and Expansion(width=expansion["width"], seed=int(expansion["seed"])),
        ridge=RIDGE.validate_python(recipe["ridge"]),
        target=target and TargetGrid.model_validate(target),
    )


def _before(empty: Snapshot, method: Method[Any], earlier: Rows, ctx: Context) -> Snapshot:
    """What was known when the last step began: sums over the rows of the steps before it."""
    if not len(earlier.labels):
        return empty
    if method.statistics:
        found = sums_of(empty, earlier, ctx, len(earlier.labels) + 1)
        classes = found.statistics.classes if earlier.targets is None else ()
        return replace(empty, classes=classes, centroids=found.centroids, statistics=found.statistics)
    centroids = class_centroids(earlier.labels, earlier.classes, earlier.blocks())
    return replace(empty, classes=by_key(centroids), centroids=centroids)


def _rows(portions: Portions, chosen: Chosen, regression: bool) -> Rows:
    """The rows that are chosen, as a method reads them; their features are read when asked for."""
    parts: list[tuple[tuple[str, ...], NDArray[np.int64]]] = []
    targets = [np.empty(0)]
    for portion in portions():
        mask = chosen(portion)
        parts.append((portion.names, portion.labels[mask]))
        if portion.targets is not None:
            targets.append(portion.targets[mask])

    def blocks() -> Iterator[NDArray[Any]]:
        for portion in portions():
            mask = chosen(portion)
            if mask.any():
                yield portion.x if mask.all() else portion.x[mask]

    if regression:
        values = np.concatenate(targets)
        return Rows(("",), np.zeros(len(values), np.int64), blocks, values)
    used = {names[i] for names, labels in parts for i in np.unique(labels)}
    classes = tuple(sorted(used, key=str.encode))
    place = {name: i for i, name in enumerate(classes)}
    indices = [
        np.array([place.get(name, -1) for name in names], np.int64)[labels] if len(labels) else labels
        for names, labels in parts
    ]
    return Rows(classes, np.concatenate([*indices, np.empty(0, np.int64)]), blocks)
