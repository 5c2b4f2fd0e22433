"""Options that many commands share, and the way from them to a client."""

from __future__ import annotations

import os
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app import config
from app.client import ADDRESS_FILE, Client


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    TIMEOUT = 5
    REFUSED_BY_GATE = 6


class Format(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Directory of the service; its key and address are found there."),
]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="PALIMPSEST_URL", help="Address of the service, when it runs elsewhere."),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job until it is done.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait before giving up (exit code 5).")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Key = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="Repeating the command with the same key has no second effect."),
]


def settings(data_dir: Path | None = None) -> config.Settings:
    """The settings by flags, environment and file."""
    return config.load({"data_dir": data_dir}).settings


def connect(data_dir: Path | None, url: str | None) -> Client:
    """A client of the service: key from `PALIMPSEST_KEY`, else the administrator's in the data directory."""
    key = os.environ.get("PALIMPSEST_KEY")
    folder = settings(data_dir).data_dir
    if key is None:
        return Client.local(folder, url)
    address = folder / ADDRESS_FILE
    if url is None and not address.exists():
        raise typer.BadParameter(f"no service runs in {folder}; name one with --url")
    return Client(url or address.read_text().strip(), key)


def model_id(api: Client, text: str) -> str:
    """The id of a model given by id or by name."""
    if text.startswith("mdl_"):
        return text
    for model in api.items("models", name=text):
        return str(model["id"])
    raise NoSuch(f"no model is called {text}")


def dataset_id(api: Client, text: str) -> str:
    """The id of a dataset given by id, or by a name that only one has."""
    if text.startswith("dst_"):
        return text
    found = [str(dataset["id"]) for dataset in api.items("datasets") if dataset["name"] == text]
    if not found:
        raise NoSuch(f"no dataset is called {text}")
    if len(found) > 1:
        raise typer.BadParameter(f"{len(found)} datasets are called {text}; say which by its id")
    return found[0]


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told not to; a no ends the command."""
    if not yes and not typer.confirm(question):
        raise typer.Exit(Exit.FAILED)


class NoSuch(Exception):
    """A name that the service does not know."""
