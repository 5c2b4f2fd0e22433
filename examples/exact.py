"""The demonstration's second part: a head that is the same bytes in whatever order its rows came.

Two models read the network that `digits` trained. One learns by `analytic` (ridge regression on a random
expansion, G-ACIL) in three batches that mix all digits, in another order; the other learns every row at once.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load, save

from app.cli.follow import draw
from app.client import Client
from examples.digits import Digits, send

BATCHES = 3
EXPANSION = {"width": 1024, "seed": 0}
SAME = ("statistics", "weights")


@dataclass(frozen=True)
class Heads:
    """What the demonstration goes on with."""

    weights: str  # the upload that both models read
    whole: str  # the dataset of all rows
    mixed: str
    joint: str


def show(api: Client, out: Console, trained: str, rows: Digits, seconds: float) -> Heads:
    """Learn both ways and print the digests, which must be equal."""
    weights = network(api, trained)
    order = np.random.default_rng(1).permutation(len(rows.labels))
    whole = send(api, rows, "digits at once")
    parts = [
        send(api, rows.take(part), f"mixed batch {number}")
        for number, part in enumerate(np.array_split(order, BATCHES), start=1)
    ]
    mixed, joint = (create(api, title, weights) for title in ("digits-mixed", "digits-joint"))
    for number, dataset in enumerate(parts, start=1):
        conflict = "extend" if number > 1 else "reject"
        learn(api, mixed, dataset, f"analytic, mixed batch {number}", seconds, conflict)
    learn(api, joint, whole, "analytic, all at once", seconds)
    versions = [api.get(f"models/{mixed}/versions/{BATCHES}"), api.get(f"models/{joint}/versions/1")]
    out.print(
        digests(versions, ("three mixed batches", "all rows at once"), "The same bytes, whatever the order")
    )
    must(are_equal(versions), "heads that learned the same rows in another order are the same bytes")
    return Heads(weights, whole, mixed, joint)


def network(api: Client, model: str) -> str:
    """Take the network out of version 1 of a model and bring it in as weights; answers the upload's id."""
    path = f"models/{model}/versions/1/artifact"
    artifact = api.call("GET", path, query={"recipient": "the demonstration"}).content
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        tensors = load(archive.read("version.safetensors"))
    prefix = "network."
    own = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    media = {"Content-Type": "application/x-safetensors"}
    answer = api.call("POST", "uploads", file=save(own), headers=media, query={"name": "digits network"})
    return str(answer.json()["id"])


def create(api: Client, title: str, weights: str) -> str:
    """A model that reads that network through a random expansion; answers its id."""
    body = {
        "name": title,
        "task": "classification",
        "input": {"kind": "image", "shape": [8, 8]},
        "network": {"name": "convnet", "weights": weights},
        "expansion": EXPANSION,
    }
    return str(api.post("models", body)["id"])


def learn(
    api: Client, model: str, dataset: str, title: str, seconds: float, on_conflict: str = "reject"
) -> None:
    """Teach one dataset by `analytic`, drawing the job."""
    job = api.update(model, [dataset], "analytic", {}, on_conflict=on_conflict)
    done = draw(api, job["id"], title.ljust(24), seconds)
    if done["state"] != "succeeded":
        raise SystemExit(f"{done['id']} {done['state']}: {done['error']}")


def digests(versions: Sequence[dict[str, Any]], names: tuple[str, str], title: str) -> Table:
    """The digests of both, side by side, as far as a terminal is wide."""
    table = Table("", *names, title=title)
    for one in SAME:
        table.add_row(f"SHA-256 of {one}", *(version["digests"][one][:16] + "…" for version in versions))
    table.add_row("accuracy", *(f"{version['metrics']['accuracy']:.4f}" for version in versions))
    return table


def are_equal(versions: Sequence[dict[str, Any]]) -> bool:
    """Whether statistics and weights of all have the same digests."""
    return all(len({version["digests"][one] for version in versions}) == 1 for one in SAME)


def must(holds: bool, promise: str) -> None:
    """End the demonstration where a promise does not hold."""
    if not holds:
        raise SystemExit(f"A promise does not hold: {promise}")
