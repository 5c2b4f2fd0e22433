"""The ledger as objects in the file store: one per decision, outside the database and never rolled back.

`<request>.approve` and `<request>.lift` are each written before the commit of what they say. A restored
database is brought up to them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from app.files import sync_directory, write_durably

Kind = Literal["approve", "lift"]
KINDS: tuple[Kind, ...] = ("approve", "lift")


@dataclass(frozen=True)
class LedgerObject:
    """One decision: keyed digests, ids and times, never a person's name."""

    request_id: UUID
    kind: Kind
    body: Mapping[str, Any]


class LedgerObjects:
    """A directory of decisions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settled: set[tuple[UUID, Kind]] = set()  # what this process saw the database say too
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, request_id: UUID, kind: Kind, body: Mapping[str, Any]) -> None:
        """Store a decision, durably. It replaces the same one of an attempt that did not commit."""
        raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        temporary = self.root / f"{request_id.hex}.{kind}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)  # of a process that was killed, whose number came again
        write_durably(self._path(request_id, kind), temporary, [raw])

    def get(self, request_id: UUID, kind: Kind) -> LedgerObject | None:
        """A decision, if it was taken."""
        try:
            raw = self._path(request_id, kind).read_bytes()
        except FileNotFoundError:
            return None
        return LedgerObject(request_id, kind, json.loads(raw))

    def names(self) -> Iterator[tuple[UUID, Kind]]:
        """Which decisions there are, without reading them; a request's approval comes before its lift."""
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                kind = path.suffix.removeprefix(".")
                if kind in KINDS:
                    yield UUID(hex=path.stem), KINDS[KINDS.index(kind)]

    def all(self) -> Iterator[LedgerObject]:
        """Every decision; a request's approval comes before its lift."""
        for request_id, kind in self.names():
            found = self.get(request_id, kind)
            if found is not None:
                yield found

    def discard_lift(self, request_id: UUID) -> None:
        """Remove a lift that never came to be: the erasure went on before the database heard of it."""
        path = self._path(request_id, "lift")
        path.unlink(missing_ok=True)
        sync_directory(path.parent)

    def _path(self, request_id: UUID, kind: Kind) -> Path:
        return self.root / request_id.hex[-2:] / f"{request_id.hex}.{kind}"
