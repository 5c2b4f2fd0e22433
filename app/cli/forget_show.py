"""How `palimpsest forget` shows what it is about to touch, where a request is, and what may be claimed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.tree import Tree

from app.cli.options import Exit
from app.cli.show import say
from app.client import Client, Json

DONE = ("completed", "completed-with-exceptions")
FOUND = ("persons", "rows", "datasets")
SUMMARY = ("id", "state", "persons", "due_at", "days_left", "ledger_sequence", "duplicate_of")


def closure(preview: Json, title: str) -> Tree:
    """What a request would touch, as a tree."""
    tree = Tree(title, highlight=False)
    if not preview["found"]:
        tree.add("nothing is stored under that name")
    rows = preview["samples"]
    if rows:
        shared = preview["shared"]
        tree.add(f"{_count(rows, 'row')}" + _of_others(shared, preview["uncovered"]))
    for dataset in preview["datasets"]:
        tree.add(_dataset(dataset))
    for model in preview["models"]:
        _model(tree, model)
    for job in preview["jobs"]:
        tree.add(f"job {job['job']} ({job['kind']}, {job['state']}) starts again without them")
    if preview["exports"]:
        known = {
            version["id"]: f"model {model['name']}, version {version['number']}"
            for model in preview["models"]
            for version in model["versions"]
        }
        left = tree.add("copies that left, whose recipients must act themselves")
        for copy in preview["exports"]:
            what = known.get(copy["version"]) or copy["version"] or copy["dataset"]
            left.add(f"{what} on {copy['at'][:10]} to {copy['recipient'] or copy['actor']}")
    shares = preview["exactly_removable"]
    if shares["rows"] is not None:
        tree.add(f"exactly removable: {shares['rows']:.0%} of the rows")
    tree.add(f"takes about {seconds(preview['estimated_seconds'])}")
    if preview["uncovered"]:
        limits = tree.add("not covered")
        for one in preview["uncovered"]:
            limits.add(one["detail"])
    return tree


def _of_others(shared: int, uncovered: list[Json]) -> str:
    """What is said of rows that name other persons too: they are among those that go, or stay."""
    if not shared:
        return ""
    s = "s" if shared == 1 else ""
    if any(one["code"] == "shared-rows" for one in uncovered):
        return f"; {shared} more, which name{s} other persons too, stay{s}"
    return f", {shared} of them name{s} other persons too"


def _dataset(dataset: Json) -> str:
    name, rows = dataset["dataset"], _count(dataset["rows"], "row")
    if not dataset["retained"]:
        return f"dataset {name}: {rows}, not stored any more"
    files = dataset["shards"] + dataset["features"]
    return f"dataset {name}: {rows}, {_count(files, 'file')} written anew"


def _model(tree: Tree, model: Json) -> None:
    title = f"model {model['name']}: {_count(len(model['versions']), 'version')}"
    if model["classes"]:
        title += f", {_count(len(model['classes']), 'class')} retired"
    guarantee = model["guarantee"] or "nothing to compute"
    branch = tree.add(f"{title}, {guarantee}, about {seconds(model['seconds'])}")
    for version in model["versions"]:
        aliases = f" ({', '.join(version['aliases'])})" if version["aliases"] else ""
        way = version["way"]
        how = f"{way['name']}: {way['reason']}" if way else "destroyed"
        if way and way["classes_gone"]:
            how += f"; without {', '.join(way['classes_gone'])}, of which no row is left"
        branch.add(f"version {version['number']}{aliases}: {how}")


def seconds(value: float) -> str:
    """`0.3 s`, `12 s`, `4 min`."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def follow(api: Client, request: str, timeout: float | None) -> Json:
    """Draw the stages as they pass until the request is done or has failed; raises `TimeoutError`."""
    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=8) as live:
        done = api.wait_forget(request, timeout, seen=lambda found: live.update(stages(found)))
    if not console.is_terminal:  # there it ends its only line itself
        console.line()
    return done


def stages(request: Json) -> RenderableType:
    """The stages that a request has reached, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for stage in request["stages"]:
        table.add_row(_mark(request, stage), stage["stage"], _took(stage), _models(stage))
    if request["done"] or request["state"] == "failed":
        table.add_row("", request["state"])
    return table


def _mark(request: Json, stage: Json) -> RenderableType:
    if stage["stage"] == request["state"]:
        return Spinner("line")
    if any(item["state"] == "failed" for item in stage["items"]):
        return "failed"
    return "done" if stage["finished_at"] else ""


def _took(stage: Json) -> str:
    if stage["finished_at"] is None:
        return ""
    begun, ended = (datetime.fromisoformat(stage[name]) for name in ("started_at", "finished_at"))
    return seconds((ended - begun).total_seconds())


def _models(stage: Json) -> str:
    items = stage["items"]
    done = sum(item["state"] == "done" for item in items)
    return f"{done} of {_count(len(items), 'model')}" if items else ""


def verdict(request: Json, claim: Json | None) -> Exit:
    """Say in one line how it ended and what may be claimed; the exit code that says so too."""
    if request["state"] not in DONE:
        causes = [item["detail"].get("cause") for item in request["items"] if item["state"] == "failed"]
        why = request["reason"] or ", ".join(str(cause) for cause in causes if cause)
        say(f"{request['id']} {request['state']}" + (f": {why}" if why else ""))
        return Exit.FAILED
    but = f" but for {_count(len(request['exceptions']), 'exception')}" if request["exceptions"] else ""
    if claim is not None:
        level = f"Level {claim['level']}" if claim["level"] else "Nothing to claim"
        say(f"Forgotten{but}. {level}: {claim['sentence']}")
    return Exit.DONE


def claim_of(certificate: bytes) -> Json:
    """Level, status and sentence of a certificate."""
    return dict(json.loads(certificate)["claim"])


def save(api: Client, request: str, certificate: bytes, file: Path) -> Iterator[Path]:
    """Write the certificate; to a name that ends in `.html` the page to print, the signed text beside it."""
    signed = file
    if file.suffix.lower() in (".html", ".htm"):
        file.write_bytes(api.certificate(request, html=True))
        yield file
        signed = file.with_suffix(".json")
    signed.write_bytes(certificate)
    yield signed


def summary(request: Json, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What people want to know of a request; the rest is in `palimpsest forget get --output json`.

    Versions of several models stand under the name of each, or its id where `names` has none.
    """
    found = {name: request[name] for name in SUMMARY if request.get(name) is not None}
    counts = {f"found {name}": value for name, value in request["evidence"].items() if name in FOUND}
    if request.get("scope") == "class":
        counts = {name.replace("persons", "classes"): value for name, value in counts.items()}
        found = {name.replace("persons", "classes"): value for name, value in found.items()}
    details = [item["detail"] for item in request["items"] if item["kind"] == "version"]
    several = len({detail.get("model") for detail in details}) > 1
    replaced = [
        (f"{(names or {}).get(detail.get('model'), detail.get('model'))}: " if several else "")
        + _replaced(detail)
        for detail in details
    ]
    return {**found, **counts, **({"versions": replaced} if replaced else {})}


def model_names(api: Client, request: Json) -> dict[str, str]:
    """The names of a request's models by id; of those that are deleted none."""
    wanted = {item["resource"] for item in request["items"] if item["kind"] == "model"}
    return {model["id"]: model["name"] for model in api.items("models") if model["id"] in wanted}


def _replaced(detail: Json) -> str:
    """`1 -> 2 by subtract, exact`."""
    after = detail.get("replacement")
    how = f"{detail.get('way')}, {detail.get('guarantee')}"
    return f"{detail.get('number')} -> {after} by {how}" if after else f"{detail.get('number')} withdrawn"


def _count(number: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{number} {word if number == 1 else plural}"
