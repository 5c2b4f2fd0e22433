"""Rows and versions in sealed files, as the service keeps them, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as parse
from safetensors.numpy import save as dump

from app import ids
from app.files import LocalFiles
from app.methods.base import Rows, Snapshot
from app.methods.parts.statistics import from_arrays
from app.vault import KeyObject, Vault, new_key
from benchmarks.sequence import key
from benchmarks.sets import Labels

SHARD = 4_096  # rows of one file

Grid = NDArray[np.int16]


@dataclass
class Store:
    """Grid features in shards under keys of their own; labels in memory, as the tables would give them."""

    vault: Vault
    width: int
    labels: Labels
    shards: list[tuple[UUID, KeyObject]] = field(default_factory=list)

    @classmethod
    def fill(cls, folder: Path, width: int, labels: Labels, blocks: Iterable[Grid]) -> Store:
        """Seal blocks of `SHARD` rows each."""
        store = cls(Vault(LocalFiles(folder / "objects"), LocalFiles(folder / "keys")), width, labels)
        for block in blocks:
            id = ids.new()
            store.shards.append((id, store.vault.seal(id, [block.tobytes()], new_key())))
        return store

    def shard(self, number: int) -> Grid:
        raw = self.vault.open(*self.shards[number])
        return np.frombuffer(raw, np.int16).reshape(-1, self.width)

    def rows(self, positions: Labels) -> Rows:
        """These rows, read from the shards that hold them and from no other."""

        def blocks() -> Iterator[Grid]:
            for number in np.unique(positions // SHARD):
                here = positions[positions // SHARD == number] - number * SHARD
                yield self.shard(int(number))[here]

        return self._rows(self.labels[np.sort(positions)], blocks)

    def without(self, positions: Labels) -> Rows:
        """All other rows."""
        kept = np.ones(len(self.labels), bool)
        kept[positions] = False

        def blocks() -> Iterator[Grid]:
            for number in range(len(self.shards)):
                mask = kept[number * SHARD : (number + 1) * SHARD]
                found = self.shard(number)
                yield found if mask.all() else found[mask]

        return self._rows(self.labels[kept], blocks)

    def _rows(self, labels: Labels, blocks: object) -> Rows:
        names, numbers = np.unique(labels, return_inverse=True)
        return Rows(tuple(map(key, names)), numbers, blocks)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Kept:
    """A version whose statistics lie sealed in a file; the rest of it is small and stays in memory."""

    vault: Vault
    version: Snapshot
    statistics: UUID
    key: KeyObject

    @classmethod
    def write(cls, vault: Vault, version: Snapshot) -> Kept:
        assert version.statistics is not None
        assert version.head is not None
        id, head = ids.new(), ids.new()
        sealed = vault.seal(id, [dump(version.statistics.arrays())], new_key())
        sealed = vault.seal(head, [version.head.weight.numpy().tobytes()], sealed)
        vault.write_key(id, sealed)
        return cls(vault, replace(version, statistics=None), id, sealed)

    def read(self) -> Snapshot:
        statistics = from_arrays(dict(parse(self.vault.open(self.statistics, self.key))))
        return replace(self.version, statistics=statistics)

    @property
    def bytes(self) -> int:
        with self.vault.files.open(self.statistics) as file:
            return file.seek(0, 2)
