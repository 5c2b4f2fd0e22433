"""Class-incremental learning on real data: `python -m benchmarks.incremental --data DIR`.

Two tracks, never in one table. *Pretrained*: embeddings as given, beside the published recipe. *From base
classes* (`--pixels`): a network trained here on the first classes only. Without `--set` both run, on the
sets and splits of the README.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import from_base, pretrained
from benchmarks.common import Bar, Row, machine, read, show, show_bars, write
from benchmarks.sets import load

FORMATS = {
    "orders": "d",
    "state": "d",
    "classes": "d",
    "average": ".4f",
    "average_sd": ".4f",
    "last": ".4f",
    "last_sd": ".4f",
    "forgetting": ".4f",
    "forgetting_sd": ".4f",
    "accuracy": ".4f",
    "accuracy_sd": ".4f",
    "seconds": ".3f",
    "seconds_per_update": ".3f",
    "peak_mb": ".0f",
    "peer_accuracy": ".4f",
    "svm_accuracy": ".4f",
    "agreement": ".4f",
    "peer_seconds": ".2f",
    "svm_seconds": ".3f",
    "closed_form_seconds": ".4f",
    "mean": ".2f",
    "low": ".2f",
    "high": ".2f",
}


@dataclass(frozen=True)
class Run:
    """A set, cut into its first classes and steps."""

    set: str
    base: int
    steps: int
    pixels: bool
    features: str | None = None

    @property
    def track(self) -> str:
        return "from base classes" if self.pixels else "pretrained"

    @property
    def title(self) -> str:
        """What the names of its bars begin with."""
        return f"{self.set}, from base classes" if self.pixels else self.set


EVERYTHING = (
    Run("clinc150", base=50, steps=10, pixels=False),
    Run("mnist10k", base=4, steps=3, pixels=True),
    Run("omniglot_small1", base=68, steps=10, pixels=True),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds a folder per set")
    parser.add_argument("--set", help="one set only; 'digits' needs no --data")
    parser.add_argument("--base", type=int, default=50, help="classes of the first state, with --set")
    parser.add_argument("--steps", type=int, default=10, help="updates after it, with --set")
    parser.add_argument("--features", help="of a set with several encoders: which, for example 'new'")
    parser.add_argument("--pixels", action="store_true", help="train the network here, on the first classes")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    runs = (
        (Run(given.set, given.base, given.steps, given.pixels, given.features),) if given.set else EVERYTHING
    )
    rows: list[Row] = []
    bars: list[Bar] = []
    for chosen in runs:
        lines, held = one(chosen, given.data)
        rows += lines
        bars += held
    show_bars(bars)
    said = [vars(chosen) for chosen in runs]
    if given.set:
        said, rows, bars = beside_others(runs[0], said, rows, bars)
    print(f"written: {write('incremental', {'sets': said}, rows, bars).name}")


def beside_others(
    chosen: Run, said: list[Row], rows: list[Row], bars: list[Bar]
) -> tuple[list[Row], list[Row], list[Bar]]:
    """Results of one set and track replace its earlier ones; those of others on this machine stay."""
    earlier = read("incremental")
    if earlier is None or earlier["machine"] != machine():
        return said, rows, bars
    gone = (chosen.track, chosen.set)
    kept = [row for row in earlier["rows"] if (row["track"], row["set"]) != gone]
    return (
        [run for run in earlier["arguments"]["sets"] if Run(**run).track != gone[0] or run["set"] != gone[1]]
        + said,
        kept + rows,
        [
            bar
            for bar in (Bar(**bar) for bar in earlier["bars"])
            if not bar.name.startswith(f"{chosen.title}: ")
        ]
        + bars,
    )


def one(chosen: Run, data: Path | None) -> tuple[list[Row], list[Bar]]:
    """Run one set, show its tables."""
    given = load(data, chosen.set, pixels=chosen.pixels, features=chosen.features)
    total = from_base.ticks() if chosen.pixels else pretrained.ticks(chosen.steps)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    ) as progress:
        task = progress.add_task(chosen.set, total=total)

        def tick(doing: str) -> None:
            progress.update(task, advance=1, description=f"{chosen.set}: {doing}")

        track = from_base if chosen.pixels else pretrained
        lines, bars, tables = track.run(given, chosen.base, chosen.steps, tick)
    where = "network trained on the base classes" if chosen.pixels else "pretrained embeddings"
    for name, table in tables.items():
        columns = {c: FORMATS.get(c, "") for c in table[0] if c not in ("track", "set")}
        show(f"{chosen.set}, {where}: {name}", table, columns)
    if not chosen.pixels:
        print("The encoder of these embeddings may have seen the classes: compare heads, not networks.")
    return lines, bars


if __name__ == "__main__":
    main()
