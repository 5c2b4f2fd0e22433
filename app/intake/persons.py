"""Sample ids and subjects become keyed digests here; their text goes no further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import Fault, ValidationFailed
from app.intake.rows import SHOWN, Chunk

LONGEST = 1_000  # characters of an id


class Persons:
    """Digests the ids of one upload, and remembers sample ids to find those that come twice."""

    def __init__(self, digest: Callable[[str], str], subjects_per_row: int) -> None:
        self._digest = digest
        self._most = subjects_per_row
        self._sample_heads: list[NDArray[np.void]] = []
        self._sample_rows: list[int] = []

    def samples(self, chunk: Chunk) -> Sequence[str | None]:
        """The digest of each row's sample id; empty where the file has none."""
        if chunk.sample_id is None:
            return ()
        return [
            self._digested(one, "sample_id", row)
            for one, row in zip(chunk.sample_id, chunk.positions, strict=True)
        ]

    def subjects(self, chunk: Chunk) -> Sequence[Sequence[str]]:
        """The digests of each row's subjects, each once; empty where the file names none."""
        if chunk.subject is None:
            return ()
        return [
            self._persons(persons, int(row))
            for persons, row in zip(chunk.subject, chunk.positions, strict=True)
        ]

    def _persons(self, persons: Sequence[Any], row: int) -> list[str]:
        if len(persons) > self._most:
            raise ValidationFailed(
                f"row {row} names more than {self._most} subjects",
                pointer=f"/subject/{row}",
            )
        found = [self._digested(one, "subject", row) for one in persons]
        return list(dict.fromkeys(digest for digest in found if digest))

    def _digested(self, value: Any, field: str, row: int) -> str | None:
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValidationFailed(f"row {row}: {field} is a string", pointer=f"/{field}/{row}")
        try:
            text = str(value).strip()
            if 1 <= len(text) <= LONGEST:
                return self._digest(text)
        except ValueError:  # a lone surrogate, or an integer of thousands of digits
            text = ""
        raise ValidationFailed(f"row {row}: {field} has 1 to {LONGEST} characters", pointer=f"/{field}/{row}")

    def remember(self, samples: Sequence[str | None], positions: NDArray[np.int64]) -> None:
        """Keep 16 bytes of each sample id of the rows that are taken."""
        named = [(one, int(row)) for one, row in zip(samples, positions, strict=True) if one]
        heads = b"".join(bytes.fromhex(digest)[:16] for digest, _ in named)
        self._sample_heads.append(np.frombuffer(heads, dtype="V16"))
        self._sample_rows.extend(row for _, row in named)

    def refuse_repeated(self) -> None:
        """Raise for sample ids that came more than once."""
        if not self._sample_rows:
            return
        heads = np.concatenate(self._sample_heads).view("<u8").reshape(-1, 2)
        order = np.lexsort((heads[:, 1], heads[:, 0]))
        repeated = (heads[order][1:] == heads[order][:-1]).all(axis=1)
        rows = sorted(self._sample_rows[i] for i in order[1:][repeated])
        if rows:
            faults = [
                Fault(f"/sample_id/{row}", "duplicate", f"row {row}: this sample_id came before")
                for row in rows[:SHOWN]
            ]
            raise ValidationFailed(f"{len(rows)} rows repeat a sample_id", errors=faults)
