"""The demonstration's third part: two of those who wrote the digits are forgotten.

The first wrote digits that only heads have learned: sums are subtracted, or steps replayed, and the outcome
has the bytes of a model that never saw that person. The second wrote digits that trained the network: it is
trained again from the rows that are left. What a certificate says is checked without the service.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.tree import Tree

from app.cli.forget_show import follow
from app.cli.forget_show import seconds as in_words
from app.client import Client, Problem
from examples import exact
from examples.exact import Heads, must

LATE = "writer 42"  # of digits 5 to 9
EARLY = "writer 7"  # of digits 0 to 4
MOST_LOST = 0.03  # of accuracy, where a network is trained again without one of sixty persons
ALIAS = "production"
INDENT = (0, 0, 0, 2)


def show(
    api: Client, out: Console, folder: Path, grown: str, at_once: str, heads: Heads, seconds: float
) -> None:
    """Forget both and print what came of it. Raises `SystemExit` where a promise does not hold."""
    out.print(f"\n[bold]Forget {LATE}, whom only heads have met.[/bold] The comparison digits-at-once is")
    out.print("deleted first: its network saw everybody.")
    delete(api, at_once)
    request = forget(api, out, LATE, seconds)
    must(ways(request) == {"subtract", "replay"}, "nothing is trained again where no network saw a person")
    compare(api, out, heads, seconds)
    certificate(api, out, folder, request, forge=True)
    roll_back(api, out, grown)

    out.print(f"\n[bold]Forget {EARLY}, whose images trained the network.[/bold] Models that read a copy")
    out.print("of it are deleted first: the service cannot know what uploaded weights saw.")
    for model in list(api.items("models")):
        if model["id"] != grown:
            delete(api, model["id"])
    before = live(api, grown)
    request = forget(api, out, EARLY, seconds)
    must(ways(request) == {"retrain"}, "a network that saw a person is trained again")
    certificate(api, out, folder, request)
    after = live(api, grown)
    was, accuracy = (float(version["metrics"]["accuracy"]) for version in (before, after))
    out.print(
        f"Accuracy of {ALIAS}: {was:.4f} before (version {before['number']}), "
        f"{accuracy:.4f} after (version {after['number']})"
    )
    must(accuracy > was - MOST_LOST, "a model stays useful when one person is forgotten")


def forget(api: Client, out: Console, person: str, seconds: float) -> dict[str, Any]:
    """Show what it would touch, forget, draw the stages, and say how each version was made anew."""
    names = {one["id"]: one["name"] for kind in ("models", "datasets") for one in api.items(kind)}
    out.print(closure(api.preview([person]), person, names))
    request = follow(api, api.forget([person])["id"], seconds)
    must(request["state"] == "completed", f"a request completes; it is {request['state']}")
    must(api.preview([person])["found"] == 0, "nothing is found of a person who was forgotten")
    out.print(replacements(api, request, names))
    return request


def closure(found: dict[str, Any], person: str, names: dict[str, str]) -> Tree:
    """What the preview of an erasure finds: rows, datasets, and versions with how each becomes clean."""
    tree = Tree(f"Of {person}, {found['samples']} rows", highlight=False)
    datasets = tree.add("in the datasets")
    for dataset in found["datasets"]:
        datasets.add(f"{names[dataset['dataset']]}: {dataset['rows']} rows")
    for model in found["models"]:
        branch = tree.add(f"in versions of {model['name']}, about {in_words(model['seconds'])}")
        for version in model["versions"]:
            way = version["way"]
            branch.add(f"{version['number']}: {way['name']}, {way['guarantee']}: {way['reason']}")
    for copy in found["exports"]:
        tree.add(f"in a copy that left to {copy['recipient']}, who must act")
    tree.add(f"not covered: {', '.join(one['code'] for one in found['uncovered'])}")
    return tree


def replacements(api: Client, request: dict[str, Any], names: dict[str, str]) -> Table:
    """Every version that was replaced, by which, how, and in how many milliseconds."""
    table = Table("version", "replaced by", "way", "guarantee", "ms", title="Made anew without them")
    found = [item["detail"] | {"id": item["resource"]} for item in request["items"] if is_version(item)]
    models = {
        version["id"]: (names[model["id"]], version["number"])
        for model in api.items("models")
        for version in api.items(f"models/{model['id']}/versions")
    }
    standing = [one for one in found if one["id"] in models]  # a deleted model's only go
    for one in sorted(standing, key=lambda one: models[one["id"]]):
        name, number = models[one["id"]]
        ms = f"{1_000 * one['seconds']:.0f}"
        table.add_row(f"{name} {number}", str(one["replacement"]), one["way"], one["guarantee"], ms)
    return table


def is_version(item: dict[str, Any]) -> bool:
    return bool(item["kind"] == "version")


def ways(request: dict[str, Any]) -> set[str]:
    """How the versions of a request became clean; those that have no other in their place went."""
    versions = (item["detail"] for item in request["items"] if is_version(item))
    return {detail["way"] for detail in versions if detail["replacement"] is not None}


def compare(api: Client, out: Console, heads: Heads, seconds: float) -> None:
    """Train a model on what the dataset still holds: it must be the cleaned version, byte for byte."""
    fresh = exact.create(api, "digits-fresh", heads.weights)
    exact.learn(api, fresh, heads.whole, "analytic, what remains", seconds)
    versions = [api.get(f"models/{heads.joint}/versions/2"), api.get(f"models/{fresh}/versions/1")]
    names = ("digits-joint, cleaned", "trained on the rest")
    out.print(exact.digests(versions, names, "As if they had never been there"))
    must(exact.are_equal(versions), "a cleaned version is the one that training on the remaining rows gives")


def certificate(
    api: Client, out: Console, folder: Path, request: dict[str, Any], *, forge: bool = False
) -> None:
    """Take the certificate and check it without the service; with `forge`, also with a byte altered."""
    file, keys, forged = (folder / f"{request['id']}.{end}" for end in ("json", "keys.json", "forged.json"))
    signed = api.certificate(request["id"])
    file.write_bytes(signed)
    keys.write_bytes(api.call("GET", "certificate-keys").content)
    out.print("[bold]palimpsest certificate verify FILE --key KEYS[/bold], without the service:")
    said = verify(out, file, keys, code=0)
    must(said["level"] == "E", "what is cleaned exactly is certified at level E")
    if forge:
        forged.write_bytes(signed.replace(b'"level":"E"', b'"level":"C"', 1))
        verify(out, forged, keys, code=1)


def verify(out: Console, file: Path, keys: Path, code: int) -> dict[str, Any]:
    """Run the command that an auditor would, who has nothing but the two files; what it said."""
    words = ["certificate", "verify", str(file), "--key", str(keys), "--output", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words], capture_output=True, text=True, check=False, timeout=60
    )
    must(done.returncode == code, "a certificate is valid as it was signed, and not with a byte altered")
    said = dict(json.loads(done.stdout))
    if said["valid"]:
        words_of = f"as signed: exit code {code}, level {said['level']}: {said['sentence']}"
    else:
        words_of = f"one byte altered: exit code {code}, {said['reason']}"
    out.print(Padding(words_of, INDENT), highlight=False)
    return said


def roll_back(api: Client, out: Console, model: str) -> None:
    """Try to go back to a version that knew the person, then to the one that the refusal names instead."""
    newest = live(api, model)["number"]
    out.print(f"Back to version 2, which knew {LATE}:")
    try:
        move(api, model, 2)
    except Problem as refusal:
        out.print(Padding(f"{refusal.status} {refusal.code}: {refusal.detail}", INDENT), highlight=False)
        must(refusal.code == "version-tainted", "what knew a person is refused as tainted")
        cleaned = int(refusal.related[0].rsplit("/", 1)[1])
    else:
        raise SystemExit("A promise does not hold: no alias goes back to a version that knew a person")
    serves = move(api, model, cleaned)["serves"]
    out.print(f"  to version {cleaned} instead: {ALIAS} serves {serves}; then on to {newest} again")
    must(serves == cleaned, "an alias goes back to the cleaned version")
    move(api, model, newest)


def live(api: Client, model: str) -> dict[str, Any]:
    """The version that `production` serves."""
    return api.get(f"models/{model}/versions/{api.get(f'models/{model}/aliases/{ALIAS}')['serves']}")


def move(api: Client, model: str, number: int) -> dict[str, Any]:
    """Move `production` to a version."""
    path = f"models/{model}/aliases/{ALIAS}"
    body = {"version": number, "reason": "the demonstration"}
    return dict(api.call("PUT", path, body=body, headers=as_read(api, path)).json())


def delete(api: Client, model: str) -> None:
    api.call("DELETE", f"models/{model}", headers=as_read(api, f"models/{model}"))


def as_read(api: Client, path: str) -> dict[str, str]:
    """The header that changes a thing only as it is now."""
    return {"If-Match": api.call("GET", path).headers["ETag"]}
