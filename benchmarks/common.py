"""What every benchmark shares: the machine in words, a table, and a file of results."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A figure that has to hold."""

    name: str
    value: float
    bar: float
    holds: bool


def at_least(name: str, value: float, bar: float) -> Bar:
    return Bar(name, value, bar, value >= bar)


def above(name: str, value: float, bar: float) -> Bar:
    return Bar(name, value, bar, value > bar)


def machine() -> dict[str, Any]:
    """What the figures were measured on; nothing that names it."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def paired(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Mean of the differences `a - b` and its 95 % interval by Student's t."""
    difference = np.asarray(a) - np.asarray(b)
    half = student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    mean = float(difference.mean())
    return {"mean": mean, "low": mean - float(half), "high": mean + float(half)}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def show(title: str, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Print a table; `columns` maps keys of the rows to a format, empty for text."""
    table = Table(title=title, title_justify="left")
    for name, form in columns.items():
        table.add_column(name.replace("_", " "), justify="right" if form else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name), form) for name, form in columns.items()))
    Console(width=180).print(table)


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def show_bars(bars: Sequence[Bar]) -> None:
    rows: list[Row] = [{**asdict(bar), "holds": "yes" if bar.holds else "NO"} for bar in bars]
    show("Bars", rows, {"name": "", "value": ".4g", "bar": ".4g", "holds": ""})


def read(name: str) -> Row | None:
    """The results of the last run, if there are any."""
    path = RESULTS / f"{name}.json"
    found: Row | None = json.loads(path.read_text()) if path.exists() else None
    return found


def write(name: str, arguments: Row, rows: Sequence[Row], bars: Sequence[Bar]) -> Path:
    """Leave the results of one run in `results/<name>.json`."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    content = {
        "machine": machine(),
        "arguments": arguments,
        "rows": list(rows),
        "bars": [asdict(bar) for bar in bars],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
