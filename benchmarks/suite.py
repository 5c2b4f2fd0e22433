"""What benchmarks of several parts share: which sets and parts to run, tables, one file of results."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import Bar, Row, machine, read, show, show_bars, write
from benchmarks.sets import Set, load, validation

SETS = ("clinc150", "tiny_imagenet_a100")
FEATURES = "new"  # of a set with several encoders


@dataclass(frozen=True)
class Given:
    """A set, and the same set judged by rows that choices are made on, never by the test rows."""

    data: Set
    choose: Set


@dataclass
class Found:
    """Lines of one part on one set, and the figures that have to hold."""

    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)


Part = Callable[[Given], Found]


def main(name: str, words: str | None, parts: Mapping[str, Part], sets: Sequence[str] = SETS) -> None:
    """Run what was asked for, part by part; what is left of earlier runs on this machine stays."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds a folder per set")
    parser.add_argument("--set", help="one set only; 'digits' needs no --data")
    parser.add_argument("--part", choices=list(parts), help="one part only")
    asked = parser.parse_args()
    for chosen in (asked.set,) if asked.set else sets:
        given = Given(
            load(asked.data, chosen, features=FEATURES), validation(asked.data, chosen, features=FEATURES)
        )
        for part in (asked.part,) if asked.part else parts:
            began = time.perf_counter()
            found = parts[part](given)
            print(f"{chosen}, {part}: {time.perf_counter() - began:.0f} s", flush=True)
            keep(name, chosen, part, found)
            for title, rows in tables(found.rows).items():
                show(f"{chosen}, {part}{title}", rows, formats(rows))
            show_bars(found.bars)


def keep(name: str, chosen: str, part: str, found: Found) -> None:
    """Results of one part on one set replace its earlier ones; those of others on this machine stay."""
    here = {"set": chosen, "part": part}
    earlier = read(name)
    said, rows, bars = [], [], []
    if earlier is not None and earlier["machine"] == machine():
        said = [run for run in earlier["arguments"]["runs"] if run != here]
        rows = [row for row in earlier["rows"] if (row["set"], row["part"]) != (chosen, part)]
        bars = [bar for bar in earlier["bars"] if not bar["name"].startswith(f"{chosen}, {part}: ")]
    own = [Bar(f"{chosen}, {part}: {bar.name}", bar.value, bar.bar, bar.holds) for bar in found.bars]
    write(
        name,
        {"runs": [*said, here]},
        [*rows, *(here | row for row in found.rows)],
        [*(Bar(**bar) for bar in bars), *own],
    )


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Lines with the same columns, under the name of their own `table` where they have one."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        title = f": {row['table']}" if "table" in row else ""
        found.setdefault(title, []).append(row)
    return found


def formats(rows: Sequence[Row]) -> dict[str, str]:
    """Every column of the lines; numbers with four digits, whole numbers whole."""
    columns: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            if name != "table":
                columns.setdefault(name, _format(value))
    return columns


def _format(value: object) -> str:
    if isinstance(value, float):
        return ".4g"
    return "d" if isinstance(value, int) and not isinstance(value, bool) else ""
