"""Where a long method leaves its state: encrypted, one per job, gone with the job's end."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import torch
from safetensors.torch import load as parse
from safetensors.torch import save as dump
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt
from app.service import Service
from app.services import jobs
from app.services.erasure import ledger
from app.services.jobs import ClaimedJob
from app.tables import Checkpoint
from app.vault import new_key
from workers.progress import Superseded

log = logging.getLogger(__name__)

MADE_WITH = "params"


class JobCheckpoint:
    """The checkpoint of one claimed job. A state made with other rows or parameters is not resumed."""

    def __init__(
        self,
        service: Service,
        claimed: ClaimedJob,
        *,
        ledger_sequence: int,
        left_out: Mapping[str, list[int]],
        params: Mapping[str, Any],
    ) -> None:
        self._service = service
        self._claimed = claimed
        self._sequence = ledger_sequence
        self._left_out: dict[str, Any] = dict(left_out)
        self._params = json.dumps(params, sort_keys=True)

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        """Store a state in place of the last one; raises `LeaseLost` where the job is somebody else's, and
        `Superseded` where it used rows that no longer may be used.

        Where the database is away the job goes on without. The bytes then stay for the sweep of orphans, for
        the commit may have come through.
        """
        vault = self._service.vault
        file_id, key_id = ids.new(), ids.new()
        raw = dump({name: t.contiguous() for name, t in state.items()}, {MADE_WITH: self._params})
        vault.write_key(key_id, vault.seal(file_id, [raw], new_key()))
        try:
            old = self._name(file_id, key_id)
        except DBAPIError:
            log.warning("checkpoint not saved", exc_info=True)
            return
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
        if _metadata(raw).get(MADE_WITH) != self._params:
            return None
        with suppress(DBAPIError):
            jobs.note(
                self._service, self._claimed, f"Attempt {self._claimed.attempt}: goes on from a checkpoint."
            )
        return dict(parse(raw))

    def _name(self, file_id: UUID, key_id: UUID) -> tuple[UUID, UUID] | None:
        """Have the job's row name these bytes; gives the key and the file that it named before."""
        with self._service.db.begin() as session:
            jobs.guard(session, self._claimed)
            self._check_rows(session)
            row = session.scalar(select(Checkpoint).filter_by(job_id=self._claimed.id))
            old = None
            if row is None:
                row = Checkpoint(id=ids.new(), job_id=self._claimed.id, created_at=clock(session))
                session.add(row)
            else:
                old = row.key_id, row.file_id
            row.file_id, row.key_id = file_id, key_id
            row.ledger_sequence, row.left_out = self._sequence, self._left_out
        return old

    def _check_rows(self, session: Session) -> None:
        """Raise `Superseded` where rows that the state was made with were restricted or erased meanwhile: a
        purge that looked before would not find it."""
        left_out = {UUID(hex=id): positions for id, positions in self._left_out.items()}
        if ledger.newly_unusable(session, left_out, self._claimed.model_id):
            raise Superseded("Rows that the job used were restricted or erased meanwhile.")


def _metadata(raw: bytes) -> Mapping[str, str]:
    """The words beside the tensors: safetensors begins with the length of a JSON header, 8 bytes."""
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    found: Mapping[str, str] = header.get("__metadata__", {})
    return found
