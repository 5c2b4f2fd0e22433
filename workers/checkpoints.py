"""Where a long method leaves its state: encrypted, one per job, gone with the job's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import select

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt
from app.service import Service
from app.services import jobs
from app.services.jobs import ClaimedJob
from app.tables import Checkpoint
from app.vault import new_key


class JobCheckpoint:
    """The checkpoint of one claimed job. A state that was made with other rows is not resumed."""

    def __init__(
        self,
        service: Service,
        claimed: ClaimedJob,
        *,
        ledger_sequence: int,
        left_out: Mapping[str, list[int]],
    ) -> None:
        self._service = service
        self._claimed = claimed
        self._sequence = ledger_sequence
        self._left_out: dict[str, Any] = dict(left_out)

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        """Store a state in place of the last one; raises `LeaseLost` where the job is somebody else's."""
        vault = self._service.vault
        file_id, key_id = ids.new(), ids.new()
        key = vault.seal(file_id, [dump({name: t.contiguous() for name, t in state.items()})], new_key())
        vault.write_key(key_id, key)
        old = None
        try:
            with self._service.db.begin() as session:
                jobs.guard(session, self._claimed)
                row = session.scalar(select(Checkpoint).filter_by(job_id=self._claimed.id))
                if row is None:
                    row = Checkpoint(id=ids.new(), job_id=self._claimed.id, created_at=clock(session))
                    session.add(row)
                else:
                    old = row.key_id, row.file_id
                row.file_id, row.key_id = file_id, key_id
                row.ledger_sequence, row.left_out = self._sequence, self._left_out
        except BaseException:
            vault.destroy(key_id, file_id)
            raise
        if old is not None:
            vault.destroy(*old)

    def load(self) -> Mapping[str, torch.Tensor] | None:
        """The state that a lost worker left, if it was made with these rows and is undamaged."""
        with self._service.db.read() as session:
            row = session.scalar(select(Checkpoint).filter_by(job_id=self._claimed.id))
        if row is None or row.left_out != self._left_out:
            return None
        try:
            raw = self._service.vault.open(row.file_id, self._service.vault.key(row.key_id))
        except ArtifactCorrupt:
            return None
        return dict(parse(raw))
