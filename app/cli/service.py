"""Commands that work on the machine of the service, on what it stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.options import settings

if TYPE_CHECKING:
    from app.service import Service


@contextmanager
def opened(data_dir: Path | None) -> Iterator[Service]:
    """The service of the settings, opened in this process; it may run elsewhere at the same time."""
    from app.service import open_service

    service = open_service(settings(data_dir))
    try:
        yield service
    finally:
        service.close()
