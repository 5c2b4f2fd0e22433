"""Inside the process that computes: one claimed job, from its start to its end in the database."""

from __future__ import annotations

import errno
import importlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.errors import AppError, ArtifactCorrupt, NotReady, StorageFull
from app.service import Service
from app.services import jobs
from app.services.jobs import Cause, ClaimedJob, LeaseLost, Signal, Stopped
from workers.context import job_context
from workers.progress import Reporter, Superseded

log = logging.getLogger(__name__)

KINDS: Mapping[str, str] = {
    "update": "workers.update",
    "forget": "workers.forget",
    "purge": "workers.purge",
    "verify": "workers.verify",
}
CLOSE_TRIES = 8
FULL = (errno.ENOSPC, errno.EDQUOT)
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cuda error", "cublas_status_alloc_failed")


def run(
    service: Service, claimed: ClaimedJob, signal: Callable[[], Signal], kinds: Mapping[str, str] = KINDS
) -> None:
    """Run a job and close it by what came of it. Writes nothing once the lease is lost.

    The module of a kind has `run(service, claimed, report)`; it publishes through `jobs.guard` and
    `jobs.finish` in its own transaction.
    """
    with job_context(claimed):
        _run(service, claimed, Reporter(service, claimed, signal), kinds)


def _run(service: Service, claimed: ClaimedJob, report: Reporter, kinds: Mapping[str, str]) -> None:
    try:
        module = importlib.import_module(kinds[claimed.kind])
        module.run(service, claimed, report)
    except LeaseLost:
        log.warning("job fenced: its lease moved on")
        _patiently(lambda: jobs.note_fenced(service, claimed))
    except Stopped as stopped:
        how = stopped.signal
        _patiently(lambda: _stop(service, claimed, how))
    except Exception as error:
        cause, detail, errors = diagnose(error)
        log.exception("job failed", extra={"cause": cause.value})
        _patiently(lambda: jobs.fail(service, claimed, cause, detail, errors))
    else:
        _patiently(lambda: jobs.drop_checkpoints(service))


def diagnose(error: Exception) -> tuple[Cause, str, Sequence[Mapping[str, str]]]:
    """The cause of a failure, and what a caller may read of it: never content, a path or a trace."""
    if isinstance(error, Superseded):
        return Cause.SUPERSEDED, str(error), ()
    if isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in FULL):
        return Cause.STORAGE_FULL, "There is no space left for files.", ()
    if isinstance(error, ArtifactCorrupt):
        return Cause.ARTIFACT_CORRUPT, error.detail, ()
    if isinstance(error, NotReady | OperationalError | InterfaceError):
        return _database(error)
    if isinstance(error, OSError):  # a file system that is away, or refuses what it allows otherwise
        return Cause.DEPENDENCY, "Files could not be read or written.", ()
    if isinstance(error, AppError):
        faults = [{"pointer": f.pointer, "code": f.code, "message": f.message} for f in error.errors]
        return Cause.INVALID_INPUT, error.detail, faults
    if isinstance(error, MemoryError) or _speaks_of_memory(error):
        return Cause.OUT_OF_MEMORY, "", ()
    return Cause.INTERNAL, "", ()


def _database(error: Exception) -> tuple[Cause, str, Sequence[Mapping[str, str]]]:
    if "disk is full" in str(error) or "No space left" in str(error):
        return Cause.STORAGE_FULL, "There is no space left for the database.", ()
    return Cause.DEPENDENCY, "", ()


def _speaks_of_memory(error: Exception) -> bool:
    """Torch has classes of its own for this on a GPU, and a plain RuntimeError on a CPU."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in MEMORY_WORDS)


def _stop(service: Service, claimed: ClaimedJob, signal: Signal) -> None:
    if signal is Signal.CANCEL:
        jobs.cancelled(service, claimed)
    elif signal is Signal.STOP:
        jobs.requeue(service, claimed, "worker stopped")


def _patiently(close: Callable[[], Any]) -> None:
    """Close a job although the database may be away for a moment; the sweep has it where that is longer."""
    for attempt in range(CLOSE_TRIES):
        try:
            close()
            return
        except LeaseLost:
            return
        except DBAPIError:
            time.sleep(min(0.1 * 2.0**attempt, 5.0))
    log.error("job left to the sweep")
