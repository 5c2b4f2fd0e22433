"""`palimpsest predict`: labels for rows, by alias or version."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.models import Model
from app.cli.options import DataDir, Format, Output, Url, connect, model_id
from app.cli.show import show_list, show_one


def predict(
    model: Model,
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, help=".npy or .json rows; without it JSON from standard input."
        ),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Alias to ask; default the newest version.")] = None,
    version: Annotated[int | None, typer.Option(help="Version to ask.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show for each row.")] = 1,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Classify rows; a prediction changes nothing."""
    with connect(data_dir, url) as api:
        found = model_id(api, model)
        asked = {"alias": alias, "version": version, "top_k": top_k}
        if file is not None and file.suffix == ".npy":
            answer: dict[str, Any] = api.call(
                "POST",
                f"models/{found}/predict",
                file=file,
                headers={"Content-Type": "application/x-npy"},
                query=asked,
                changes=False,
            ).json()
        else:
            inputs = json.loads(file.read_text() if file is not None else sys.stdin.read())
            answer = api.predict(found, inputs, **asked)
    if output is Format.TABLE:
        rows = [{"row": row, **item} for row, item in enumerate(answer["predictions"])]
        show_list(rows, ("row", *(key for key in (rows[0] if rows else {}) if key != "row")), output)
    else:
        show_one(answer, output)
