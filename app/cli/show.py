"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from app.cli.options import Format

Json = dict[str, Any]


def draw(table: RenderableType) -> None:
    """A table or a tree on standard output; a pipe gets lines as long as they are, without blanks at their
    ends. What stands in brackets is text like any other."""
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)
    with console.capture() as drawn:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


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
    draw(table)


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
    for name, value in flat(item):
        if name.partition(".")[0] not in leave_out:
            table.add_row(name, text(value))
    draw(table)


def flat(item: Json) -> Iterator[tuple[str, Any]]:
    """Names and values, with the fields of an object as `object.field`."""
    for name, value in item.items():
        if isinstance(value, dict) and value:
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def at(item: Json, column: str) -> Any:
    """The value at a dotted name, or None."""
    value: Any = item
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def text(value: Any) -> str:
    """A value in a table cell: numbers to four digits, a list of objects one a line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "  ".join(f"{name} {text(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, list):
        separator = "\n" if any(isinstance(inner, dict) for inner in value) else ", "
        return separator.join(text(inner) for inner in value) or "-"
    return str(value)
