"""Logs: one JSON object a line, UTC, with the request or job that caused it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict

_context: ContextVar[Mapping[str, str]] = ContextVar("context", default=MappingProxyType({}))


@contextmanager
def context(**words: str | None) -> Iterator[None]:
    """Lines logged inside carry these words, in threads it starts work on too; None says nothing."""
    given = {name: word for name, word in words.items() if word is not None}
    token = _context.set({**_context.get(), **given})
    try:
        yield
    finally:
        _context.reset(token)


def request_context(request_id: str) -> AbstractContextManager[None]:
    """Lines logged inside carry this request's id."""
    return context(request_id=request_id)


def configure(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send every logger of this process to `stream`. Called once, by whoever starts the process."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _add_context,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(noisy)
        logger.handlers.clear()
        logger.propagate = noisy != "uvicorn.access"  # the edge writes one line per request itself


def _add_context(_: Any, __: str, line: EventDict) -> EventDict:
    return {**_context.get(), **line}
