"""`palimpsest predict`: labels for rows, by alias or version."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.models import Model
from app.cli.options import DataDir, Format, Output, Url, connect, model_id
from app.cli.show import Json, show_list, show_one

COLUMNS = ("row", "label", "score", "class_id", "behind it")


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
    asked = {"alias": alias, "version": version, "top_k": top_k}
    with connect(data_dir, url) as api:
        found = model_id(api, model)
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
            answer = api.predict(found, read_json(file), **asked)
    if output is not Format.TABLE:
        show_one(answer, output)
        return
    show_list((in_words(*item) for item in enumerate(answer["predictions"])), COLUMNS, output)


def read_json(file: Path | None) -> Any:
    """Rows as nested lists, from a file or from standard input."""
    try:
        text = file.read_text() if file is not None else sys.stdin.read()
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise typer.BadParameter(f"{file or 'standard input'} is neither .npy nor JSON") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def in_words(row: int, prediction: Json) -> Json:
    """One line of the table: the best class and, where more were asked for, the ones behind it."""
    others = (f"{one['label']} ({one['score']:.4g})" for one in (prediction.get("top_k") or [])[1:])
    return {**prediction, "row": row, "behind it": ", ".join(others)}
