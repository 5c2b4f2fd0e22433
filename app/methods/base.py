"""The whole interface between a method and the service: what it is given, what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.digest import array_digest, label_keys
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import Grid
from app.methods.parts.model_settings import FixedRidge, Ridge, TargetGrid
from app.methods.parts.statistics import Statistics

CPU = torch.device("cpu")


class Kind(StrEnum):
    """The three requests."""

    UPDATE = "update"
    FORGET = "forget"
    UPGRADE = "upgrade"


class Task(StrEnum):
    """What a model is for."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    RETRIEVAL = "retrieval"
    GENERATION = "generation"


class Split(StrEnum):
    """A named part of the data that a method can ask for."""

    NEW = "new"
    SELECT = "select"  # rows of a named evaluation data set, to choose parameters on


class Reads(StrEnum):
    """What a method is given of each row."""

    INPUTS = "inputs"  # as sent: float32 vectors and tables, uint8 images
    FEATURES = "features"  # int16, on the grid of the model's feature map


class Cancelled(Exception):
    """Raised out of `Context.report` by whoever listens; a method lets it pass."""


class Unfit(ValueError):
    """The method cannot work on this data. `field` names the part of the request to change."""

    def __init__(self, message: str, field: str = "/method") -> None:
        super().__init__(message)
        self.field = field


class Params(BaseModel):
    """Parameters of a method: every field has a bound, a default and a sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True)
class Centroid:
    """Sum and count of one class's rows on the grid: exact, so merging and subtracting are too."""

    sum: NDArray[np.int64]  # (width,)
    count: int

    def __add__(self, other: Centroid) -> Centroid:
        return Centroid(self.sum + other.sum, self.count + other.count)

    def mean(self) -> NDArray[np.float64]:
        """(width,), in grid units."""
        return self.sum / self.count


@dataclass(frozen=True)
class Head:
    """A linear classifier, or one linear regression, on grid features: `scores = weight @ x + bias`.

    `x` is the row in grid units times `grid.unit`, divided by its length where `normalise` is set; with
    `expanded` it is the row of the model's expansion, in the same unit and not divided.
    """

    weight: torch.Tensor  # (classes, width) float32
    bias: torch.Tensor  # (classes,) float32
    normalise: bool
    expanded: bool = False

    def digest(self, classes: Sequence[str]) -> str:
        """The digest `weights` of a version: its head and the label keys of the head's rows."""
        arrays: dict[str, NDArray[Any]] = {
            "head.bias": self.bias.detach().cpu().numpy(),
            "head.normalise": np.array([self.normalise], np.uint8),
            "head.weight": self.weight.detach().cpu().numpy(),
            "classes": label_keys(classes),
        }
        if self.expanded:
            arrays["head.expanded"] = np.array([True], np.uint8)
        return array_digest(arrays)


@dataclass(frozen=True)
class Snapshot:
    """A version in memory. `classes` holds label keys in the order of their UTF-8 bytes."""

    input: InputSpec
    grid: Grid
    network: NetworkSpec
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)  # of the network, its state dict
    classes: tuple[str, ...] = ()
    head: Head | None = None
    centroids: Mapping[str, Centroid] = field(default_factory=dict)
    statistics: Statistics | None = (
        None  # over every row that was learned from, with the features of the head
    )
    expansion: Expansion | None = None  # the three last are settings of the model
    ridge: Ridge = field(default_factory=FixedRidge)
    target: TargetGrid | None = None  # of a regression


@dataclass(frozen=True)
class Rows:
    """The rows of one split, read block by block in a fixed order and never all at once."""

    classes: tuple[str, ...]  # label keys in byte order
    labels: NDArray[np.int64]  # (rows,), indices into `classes`
    blocks: Callable[[], Iterator[NDArray[Any]]]  # each (b, ...): inputs or int16 features
    targets: NDArray[np.float64] | None = None  # (rows,), of a regression, whose labels are not read

    def load(self) -> NDArray[Any]:
        """Every row in one array, for methods that pass over the data many times."""
        return np.concatenate(list(self.blocks()))


Data = Mapping[Split, Rows]


@dataclass(frozen=True)
class Progress:
    """How far a method is: `done` of `total` units, and what it measured on the way."""

    done: int
    total: int
    phase: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Checkpoint(Protocol):
    """Where a long method leaves its state, for the successor of a lost worker."""

    def save(self, state: Mapping[str, torch.Tensor]) -> None: ...

    def load(self) -> Mapping[str, torch.Tensor] | None: ...


@dataclass(frozen=True)
class Context:
    """What a method may know of the outside: where to compute, a seed, and someone to tell."""

    device: torch.device = CPU
    seed: int = 0
    memory: int = 8 * 2**30  # bytes; what would need more is refused before any work
    on_progress: Callable[[Progress], None] = lambda _: None
    checkpoint: Checkpoint | None = None

    def report(self, done: int, total: int, phase: str = "", **metrics: float) -> None:
        """Say how far the work is; raises `Cancelled` where the listener wants it to stop."""
        self.on_progress(Progress(done, total, phase, metrics))


@dataclass(frozen=True)
class Outcome:
    """What a method gives back: the new version, and what explains it (JSON values only)."""

    after: Snapshot
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Bytes that a method takes at most, beside blocks of rows, by the features that its head reads."""

    square: int = 0  # per square of the width: matrices of features by features
    table: int = 0  # per feature of a class
    per_feature: int = 0  # what is worked on in blocks
    per_class: int = 0

    def bytes(self, width: int, classes: int = 0) -> int:
        large = self.square * width**2 + self.table * width * classes
        return large + self.per_feature * width + self.per_class * classes

    def shortage(self, width: int, classes: int, available: int) -> str | None:
        """What to say where that is more than is `available`."""
        needed = self.bytes(width, classes)
        if needed <= available:
            return None
        of_classes = f" and {classes:,} classes" if classes > 1 else ""
        return (
            f"a head on {width:,} features{of_classes} needs {needed / 2**30:,.1f} GiB of memory, more than "
            f"the {available / 2**30:,.1f} GiB that there are"
        )


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Method(Generic[P]):
    """One algorithm: its name, what it needs, its parameters and its `run`."""

    name: str  # in URLs, rows and the file name alike
    kind: Kind
    tasks: frozenset[Task]
    needs: frozenset[Split]
    reads: Reads
    params: type[P]
    run: Callable[[Snapshot, Data, P, Context], Outcome]
    summary: str  # one sentence that users see
    source: str  # the paper
    trains_network: bool = False  # otherwise the network is frozen and the feature map stays
    remakes_head: bool = False  # without new rows, from the centroids of the parent
    statistics: bool = False  # reads and keeps the statistics; rows are added to those of the parent
    may_use: frozenset[Split] = frozenset()  # what it takes besides `needs` where there is some
    memory: Memory = Memory()  # where it is declared, more than there is is refused before any work

    def selects(self, params: Mapping[str, Any]) -> bool:
        """Whether it is to choose parameters on rows of an evaluation data set: role `select`."""
        return Split.SELECT in self.may_use and bool(params.get("choose"))
