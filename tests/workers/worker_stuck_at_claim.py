"""A worker that claims one job and then does nothing more: what is left when a process stops right there."""

import time
from pathlib import Path

from tests.workers.worker import main
from workers.tasks import Desk


def stay(desk, claimed):
    Path(claimed.request["notes"]).write_text("claimed\n")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    Desk._run = stay  # type: ignore[method-assign]
    main()
