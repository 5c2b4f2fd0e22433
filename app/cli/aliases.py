"""`palimpsest alias`: movable names of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.models import Model
from app.cli.options import DataDir, Format, Key, Output, Url, connect, model_id
from app.cli.show import show_list, show_one
from app.client import Problem

app = typer.Typer(name="alias", help="Aliases: movable names of versions.", no_args_is_help=True)

COLUMNS = ("name", "version", "protected", "computed")
MOVES = ("version", "reason", "actor", "created_at")

Name = Annotated[str, typer.Argument(metavar="ALIAS", help="Name of the alias.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]


@app.command("list")
def list_(model: Model, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """List the aliases of a model."""
    with connect(data_dir, url) as api:
        show_list(api.items(f"models/{model_id(api, model)}/aliases"), COLUMNS, output)


@app.command("set")
def set_(
    model: Model,
    alias: Name,
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    reason: Reason = "set by hand",
    protected: Annotated[
        bool | None, typer.Option("--protected/--no-protected", help="Moves then need scope promote.")
    ] = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Create an alias or move it; refused where it moved since it was read."""
    with connect(data_dir, url) as api:
        path = f"models/{model_id(api, model)}/aliases/{alias}"
        try:
            condition = {"If-Match": api.call("GET", path).headers["ETag"]}
        except Problem as problem:
            if problem.status != 404:
                raise
            condition = {}  # there is none yet, and a new one needs no condition
        body = {"version": version, "reason": reason}
        if protected is not None:
            body["protected"] = protected
        show_one(api.call("PUT", path, body=body, headers=condition).json(), output)


@app.command()
def rollback(
    model: Model,
    alias: Name,
    reason: Reason = "rolled back by hand",
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Put an alias back where it stood before its last move."""
    with connect(data_dir, url) as api:
        path = f"models/{model_id(api, model)}/aliases/{alias}"
        etag = api.call("GET", path).headers["ETag"]
        answer = api.call(
            "POST",
            f"{path}/rollback",
            body={"reason": reason},
            headers={"If-Match": etag},
            key=idempotency_key,
        )
        show_one(answer.json(), output)


@app.command()
def history(
    model: Model, alias: Name, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None
) -> None:
    """Show every move of an alias."""
    with connect(data_dir, url) as api:
        path = f"models/{model_id(api, model)}/aliases/{alias}/history"
        show_list(api.items(path), MOVES, output)
