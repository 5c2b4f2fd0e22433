"""The service itself: how soon, how many, how responsive. `python -m benchmarks.service`.

All clients and servers share the same two cores. A figure in seconds is that of the machine it was measured
on; what has a bar is a ratio, or generous. No data set is read: rows are made here.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Bar, Row, show, show_bars, write
from benchmarks.served import STACKS, served
from benchmarks.service_jobs import jobs
from benchmarks.service_reads import busy, reads
from benchmarks.service_uploads import uploads

PARTS = ("jobs", "reads", "busy", "uploads")
CORES = 2


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--data", type=Path, help="as for the other benchmarks; nothing is read from it")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--updates", type=int, default=60, help="updates per stack")
    parser.add_argument("--requests", type=int, default=2_000, help="requests behind each p99")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of 384 float32 that are uploaded")
    given = parser.parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    parts = given.part or PARTS

    rows: list[Row] = []
    bars: list[Bar] = []
    for stack in STACKS if "jobs" in parts else STACKS[:1]:
        with served(stack) as running:
            measured: list[Row] = []
            if "jobs" in parts:
                measured += jobs(running, given.updates, bars)
            if stack == "embedded":
                measured += reads(running, bars) if "reads" in parts else []
                measured += busy(running, given.requests, bars) if "busy" in parts else []
                measured += uploads(running, given.rows, bars) if "uploads" in parts else []
        show(f"Service, {stack} stack", measured, {"measured": "", "value": ".4g", "unit": "", "note": ""})
        rows += measured
    show_bars(bars)
    if parts == PARTS:
        arguments = {"updates": given.updates, "requests": given.requests, "rows": given.rows}
        write("service", arguments, rows, bars)


if __name__ == "__main__":
    main()
