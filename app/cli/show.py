"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from app.cli.options import Format

Json = dict[str, Any]


def console() -> Console:
    """Rich output; a pipe gets lines as long as they are."""
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for people, on standard error, so that standard output stays data."""
    typer.echo(text, err=True)


def dump(value: Any) -> None:
    """JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_list(items: Iterable[Json], columns: Sequence[str], output: Format) -> None:
    """Many things: a table of columns, one JSON array, or one JSON object a line."""
    if output is Format.JSONL:
        for item in items:
            typer.echo(json.dumps(item, ensure_ascii=False))
        return
    found = list(items)
    if output is Format.JSON:
        dump(found)
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for item in found:
        table.add_row(*(text(at(item, column)) for column in columns))
    console().print(table)


def show_one(item: Json, output: Format, leave_out: Sequence[str] = ("links",)) -> None:
    """One thing: its fields below each other, or as JSON."""
    if output is Format.JSONL:
        typer.echo(json.dumps(item, ensure_ascii=False))
        return
    if output is Format.JSON:
        dump(item)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in item.items():
        if name not in leave_out:
            table.add_row(name, text(value))
    console().print(table)


def at(item: Json, column: str) -> Any:
    """The value at a dotted name, or None."""
    value: Any = item
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def text(value: Any) -> str:
    """A value in a table cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(text(v) for v in value) or "-"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
