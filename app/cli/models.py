"""`palimpsest model`: named lineages of versions."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.follow import end
from app.cli.options import (
    DataDir,
    Format,
    Key,
    Output,
    Timeout,
    Url,
    Wait,
    Yes,
    confirm,
    connect,
    model_id,
)
from app.cli.show import show_list, show_one

app = typer.Typer(name="model", help="Models: named lineages of versions.", no_args_is_help=True)

COLUMNS = ("id", "name", "task", "input.kind", "network.name", "created_at")
HISTORY = ("created_at", "event", "version", "alias", "reason", "job")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name or id of the model.")]


class Kind(StrEnum):
    """What one row is."""

    VECTOR = "vector"
    IMAGE = "image"
    TABLE = "table"


def pairs(text: list[str]) -> dict[str, Any]:
    """`name=value` options as a dict; a value is JSON where it parses as such, else text."""
    found: dict[str, Any] = {}
    for item in text:
        name, equals, value = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"{item} is not of the form name=value")
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """JSON where it parses as such, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the model, unique in the tenant.")],
    kind: Annotated[Kind, typer.Option(help="What one row is.")] = Kind.VECTOR,
    shape: Annotated[str, typer.Option(help="Shape of one row: 384, 8x8 or 32x32x3.")] = "",
    task: Annotated[str, typer.Option(help="What the model is for.")] = "classification",
    network: Annotated[str, typer.Option(help="identity for embeddings, mlp or convnet.")] = "identity",
    network_param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Parameter of the network; repeatable.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Id of an upload with the network's weights.")] = None,
    grid_exponent: Annotated[
        int | None, typer.Option(help="Features are integers times 2**exponent; without it, normalised.")
    ] = None,
    target_exponent: Annotated[
        int | None, typer.Option(help="Of a regression: targets are integers times 2**exponent.")
    ] = None,
    expansion_width: Annotated[
        int | None, typer.Option(min=1, help="Width of a random expansion for closed-form heads.")
    ] = None,
    expansion_seed: Annotated[int, typer.Option(min=0, help="Seed of that expansion.")] = 0,
    ridge: Annotated[
        str | None, typer.Option(help="Of closed-form heads: k of a ridge of 2**k (default -4), or gcv.")
    ] = None,
    keep_versions: Annotated[
        int | None, typer.Option(min=1, help="How many of the newest versions stay usable (default 5).")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="Id of a dataset to evaluate every version on.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="min_old, min_new or max_forgetting; repeatable."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="More fields of the body, as JSON.")
    ] = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Create a model: its task, the form of its rows and the network that reads them."""
    more = read_body(file) if file else {}
    spec: dict[str, Any] = {"kind": kind.value, "shape": shape_of(shape)} if shape else {}
    if grid_exponent is not None:
        spec["grid"] = {"exponent": grid_exponent}
    if target_exponent is not None:
        spec["target"] = {"exponent": target_exponent}
    body: dict[str, Any] = {"name": name, "task": task, **more}
    if spec:
        body["input"] = {**more.get("input", {}), **spec}
    chosen = {"name": network, "params": pairs(network_param or []), "weights": weights}
    body.setdefault("network", {key: value for key, value in chosen.items() if value})
    if expansion_width is not None:
        body["expansion"] = {"width": expansion_width, "seed": expansion_seed}
    if ridge is not None:
        body["ridge"] = ridge if ridge == "gcv" else {"k": value_of(ridge)}
    if keep_versions is not None:
        body["keep_versions"] = keep_versions
    if gate:
        body["gates"] = pairs(gate)
    if evaluation:
        body["evaluation"] = evaluation
    if "input" not in body:
        raise typer.BadParameter("say the form of one row with --shape")
    with connect(data_dir, url) as api:
        show_one(api.post("models", body, key=idempotency_key), output)


def read_body(file: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        found = json.loads(file.read_text())
    except (ValueError, RecursionError):
        raise typer.BadParameter(f"{file} is not JSON") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} is not a JSON object")
    return found


def shape_of(text: str) -> list[int]:
    """`32x32x3` as a list of lengths."""
    try:
        return [int(length) for length in text.lower().split("x")]
    except ValueError:
        raise typer.BadParameter(f"{text} is no shape; write 384, 8x8 or 32x32x3") from None


@app.command("list")
def list_(output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """List models, oldest first."""
    with connect(data_dir, url) as api:
        show_list(api.items("models"), COLUMNS, output)


@app.command()
def get(model: Model, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """Show one model."""
    with connect(data_dir, url) as api:
        show_one(api.get(f"models/{model_id(api, model)}"), output)


@app.command("set")
def set_(
    model: Model,
    policy: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="The update policy, as JSON; null takes it away."),
    ],
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Set the update policy of a model: it then learns the datasets that name it by itself."""
    try:
        body = {"update_policy": json.loads(policy.read_text())}
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{policy} is not JSON: {error}") from None
    with connect(data_dir, url) as api:
        path = f"models/{model_id(api, model)}"
        etag = api.call("GET", path).headers["ETag"]
        show_one(api.call("PATCH", path, body=body, headers={"If-Match": etag}).json(), output)


@app.command()
def history(model: Model, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """Show what the update policy decided and where aliases went, oldest first."""
    with connect(data_dir, url) as api:
        show_list(api.items(f"models/{model_id(api, model)}/history"), HISTORY, output)


@app.command()
def delete(
    model: Model,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Delete a model; a job destroys what its versions stored."""
    with connect(data_dir, url) as api:
        path = f"models/{model_id(api, model)}"
        confirm(f"Delete {model} with all its versions?", yes)
        etag = api.call("GET", path).headers["ETag"]
        job = api.call("DELETE", path, headers={"If-Match": etag}).json()
        end(api, job, output, wait=wait, timeout=timeout)
