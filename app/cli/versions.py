"""`palimpsest version`: the immutable states of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.models import Model
from app.cli.options import DataDir, Format, Output, Url, connect, model_id
from app.cli.show import show_list, show_one

app = typer.Typer(name="version", help="Versions: immutable states of a model.", no_args_is_help=True)

COLUMNS = ("number", "parent", "method.name", "accuracy", "classes", "state", "tainted", "created_at")


@app.command("list")
def list_(model: Model, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """List the versions of a model."""
    with connect(data_dir, url) as api:
        show_list(api.items(f"models/{model_id(api, model)}/versions"), COLUMNS, output)


@app.command()
def get(
    model: Model,
    number: Annotated[int, typer.Argument(help="Number of the version.")],
    lineage: Annotated[bool, typer.Option("--lineage", help="Show what it was made from.")] = False,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Show one version."""
    with connect(data_dir, url) as api:
        path = f"models/{model_id(api, model)}/versions/{number}"
        show_one(api.get(f"{path}/lineage" if lineage else path), output)
