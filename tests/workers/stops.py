"""Stages of a real update at which the process that computes stays while a file of that name is there.

`python -m tests.workers.stops worker --queues …` is a worker whose computing process does so.
"""

from __future__ import annotations

import os
import sys
import time
from functools import wraps
from pathlib import Path

from workers import __main__ as worker

STAGES = ("loading", "computing", "saved", "publishing", "published")
FOLDER = "STAGES"  # in the environment: where the files are


def stay(name):
    """Say which process has come here, and stay while that is asked for."""
    asked = Path(os.environ[FOLDER]) / name
    if asked.exists():
        asked.with_suffix(".here").write_text(str(os.getpid()))
    while asked.exists():
        time.sleep(0.02)


def before(name, function):
    @wraps(function)
    def wrapped(*arguments, **given):
        stay(name)
        return function(*arguments, **given)

    return wrapped


def after(name, function):
    @wraps(function)
    def wrapped(*arguments, **given):
        found = function(*arguments, **given)
        stay(name)
        return found

    return wrapped


def compute():
    from app.services import jobs
    from workers import child, learn, plan, update

    plan.make = before("loading", plan.make)
    learn._context = before("computing", learn._context)
    update._publish = before("saved", update._publish)
    jobs.finish = after("publishing", jobs.finish)  # inside the transaction
    update.run = after("published", update.run)
    child.main()


if __name__ == "__main__":
    if sys.argv.pop(1) == "worker":
        worker.main([sys.executable, "-m", "tests.workers.stops", "compute"])
    else:
        compute()
