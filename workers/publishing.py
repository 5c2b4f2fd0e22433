"""The end of a job: what it made becomes facts once, whatever the database does meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from app.errors import AppError
from app.services.jobs import LeaseLost, Stopped
from workers.progress import Superseded

log = logging.getLogger(__name__)

PAUSES = (0.1, 0.4, 1.6, 6.4)  # seconds between tries to publish


def patiently(publish: Callable[[], None], discard: Callable[[], None]) -> None:
    """Publish, again where the database is away for a moment: the guard lets it happen once.

    `discard` destroys the bytes where no row names them. After a commit of which nobody knows whether it came
    through a lost lease may mean that it did, so they are left to the sweep of orphans.
    """
    in_doubt = False
    for pause in (*PAUSES, None):
        try:
            return publish()
        except DBAPIError:
            if pause is None:
                raise
            in_doubt = True
            log.warning("not published yet", exc_info=True)
            time.sleep(pause)
        except (AppError, LeaseLost, Stopped, Superseded):
            if not in_doubt:
                discard()
            raise
