"""A model that learns digits in three goes, over HTTP, on scikit-learn's 8x8 images.

A small convolutional network learns 0 to 4; FeTrIL adds 5 to 7 and then 8 and 9, with nothing kept of the
past but one centroid a class. For comparison the same network learns all ten digits at once. Then two models
that read the first network learn by `analytic`, one in mixed batches, and end with the same bytes. Last, two
of those who wrote the digits are forgotten: one whom only heads have met, and one who trained the network.

    python -m examples.demo [--keep]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from app.cli.follow import draw
from app.client import Client
from examples import exact, forgetting, pictures, service
from examples.digits import Digits, load, name, send

TARGET = 0.955
GOES = ((0, 1, 2, 3, 4), (5, 6, 7), (8, 9))
SHOWN = 8
TRAINING = {"epochs": 15}
AT_ONCE = {"epochs": 20, "turns": False}  # turned copies help classes that come later: there are none
ADDING = {"solver": "svm"}
SEED = 0
JOB_SECONDS = 300.0
TITLE = 24  # characters before a bar

out = Console()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the service running at the end")
    keep = parser.parse_args(argv).keep
    folder = Path(tempfile.mkdtemp(prefix="palimpsest-demo-"))
    out.print("Starting a service of its own ...", style="dim")
    process = service.start(folder)
    try:
        with Client.local(folder) as api:
            reached = show(api, folder)
    except BaseException:
        service.stop(process)
        out.print(f"It did not get to its end; the service's log is {folder / 'serve.log'}", soft_wrap=True)
        raise
    if keep:
        say_where(folder, process.pid)
    else:
        service.stop(process)
        shutil.rmtree(folder)
    if reached < TARGET:
        out.print(f"[red]{reached:.4f} is below the target of {TARGET}[/red]")
        return 1
    out.print(f"[green]Final accuracy over ten digits {reached:.4f} (target {TARGET})[/green]")
    return 0


def show(api: Client, folder: Path) -> float:
    """The whole demonstration against a started service: the accuracy over ten digits that `fetril` reached
    before anybody was forgotten. Certificates go into `folder`.

    Raises `SystemExit` where a promise does not hold.
    """
    rows = load()
    datasets = [send(api, rows.take(np.isin(rows.labels, some)), f"digits {name(some)}") for some in GOES]
    grown = create(api, "digits")
    for number, (dataset, learnt) in enumerate(zip(datasets, GOES, strict=True)):
        method, params = ("supervised", TRAINING) if number == 0 else ("fetril", ADDING)
        job = api.update(grown, [dataset], method, params, alias="production", seed=SEED)
        end(draw(api, job["id"], f"{method} learns {name(learnt)}".ljust(TITLE), JOB_SECONDS))
    at_once = create(api, "digits-at-once")
    job = api.update(at_once, datasets, "supervised", AT_ONCE, seed=SEED)
    end(draw(api, job["id"], f"supervised learns {name(range(10))}".ljust(TITLE), JOB_SECONDS))

    numbers = range(1, len(GOES) + 1)
    versions = [api.get(f"models/{grown}/versions/{number}") for number in numbers]
    reference = api.get(f"models/{at_once}/versions/1")
    out.print(accuracies(versions, reference))
    out.print(lineage(api, versions))
    predictions(api, grown, rows.take(np.flatnonzero(rows.is_eval)[:SHOWN]))
    heads = exact.show(api, out, grown, rows, JOB_SECONDS)
    forgetting.show(api, out, folder, grown, at_once, heads, JOB_SECONDS)
    return float(versions[-1]["metrics"]["accuracy"])


def create(api: Client, title: str) -> str:
    """A model of 8x8 images with a small convolutional network; answers its id."""
    body = {
        "name": title,
        "task": "classification",
        "input": {"kind": "image", "shape": [8, 8]},
        "network": {"name": "convnet"},
    }
    return str(api.post("models", body)["id"])


def end(job: dict[str, Any]) -> None:
    """Stop the demonstration where a job did not succeed."""
    if job["state"] != "succeeded":
        raise SystemExit(f"{job['id']} {job['state']}: {job['error']}")


def accuracies(versions: Sequence[dict[str, Any]], reference: dict[str, Any]) -> Table:
    """Accuracy on the evaluation rows of every version: digits it knew before, new ones, all."""
    table = Table(
        "version", "method", "old", "new", "all", title="Accuracy on rows no version was trained on"
    )
    for version in versions:
        table.add_row(f"{version['number']}", version["method"]["name"], *parts(version))
    table.add_section()
    table.add_row("", "all ten at once", *parts(reference), style="dim")
    return table


def parts(version: dict[str, Any]) -> list[str]:
    """Accuracies as text; a version without old classes has none on them."""
    found = (version["metrics"][name] for name in ("accuracy_old", "accuracy_new", "accuracy"))
    return ["-" if value is None else f"{value:.4f}" for value in found]


def lineage(api: Client, versions: Sequence[dict[str, Any]]) -> Tree:
    """Every version under its parent, with the datasets that trained it."""
    names = {dataset["id"]: dataset["name"] for dataset in api.items("datasets")}
    root = Tree("Lineage of [bold]digits[/bold]")
    branches: dict[int | None, Tree] = {None: root}
    for version in versions:
        used = [edge for edge in version["datasets"] if edge["role"] == "train" and not edge["inherited"]]
        rows = ", ".join(f"{names[edge['dataset']]} ({edge['rows']} rows)" for edge in used)
        text = f"version {version['number']}: {version['method']['name']} on {rows}"
        branches[version["number"]] = branches[version["parent"]].add(text)
    return root


def predictions(api: Client, model: str, shown: Digits) -> None:
    """Draw a few images with what `production` says of them and how sure it is."""
    answer = api.predict(model, shown.images.tolist(), alias="production")
    said = [prediction["label"] for prediction in answer["predictions"]]
    captions = [
        f"{text} ✓" if text == str(label) else f"{text} ≠ {label}"
        for text, label in zip(said, shown.labels, strict=True)
    ]
    out.print(f"Predictions of production (version {answer['version']}):")
    for line in pictures.row(list(shown.images), captions, out.is_terminal, gap=1):
        out.print(line, soft_wrap=True)


def say_where(folder: Path, process: int) -> None:
    """How to go on with the service that was left running."""
    address = (folder / "address").read_text().strip()
    out.print(f"The service still runs at {address}; try it, and stop it:")
    out.print(f"  {sys.executable} -m app.cli version list digits --data-dir {folder}", soft_wrap=True)
    out.print(f"  kill -INT {process}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
