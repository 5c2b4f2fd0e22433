"""`python -m workers --queues cpu,gpu`: what `palimpsest worker` and `palimpsest serve` start."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from app import config, logs
from workers.compute import COMMAND
from workers.main import run
from workers.parent import die_with


def main(command: Sequence[str] = COMMAND) -> None:
    """Read the settings from the environment and work."""
    parser = argparse.ArgumentParser(prog="palimpsest worker")
    parser.add_argument("--queues", default="cpu,gpu,io", help="queues to serve, with commas between")
    parser.add_argument("--parent", type=int, help="end with this process")
    arguments = parser.parse_args()
    if arguments.parent:
        die_with(arguments.parent, signal.SIGTERM)
    logs.configure()
    sys.exit(run(config.load().settings, arguments.queues.split(","), command))


if __name__ == "__main__":
    main()
