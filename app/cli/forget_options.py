"""What `palimpsest forget` is told: whom to forget, and the fields of the request that follow from that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from app.cli.options import NoSuch, dataset_id, model_id
from app.client import Client

STDIN = Path("-")
BETWEEN = "\t"  # identifiers of one person, in a line of a file


class Regulation(StrEnum):
    """Whose deadline counts."""

    GDPR = "gdpr"
    CCPA = "ccpa"


class Accept(StrEnum):
    """The weakest guarantee that will do."""

    EXACT = "exact"
    CERTIFIED = "certified"
    APPROXIMATE = "approximate"


class SharedRows(StrEnum):
    """What becomes of rows that name other persons too."""

    ERASE = "erase"
    REPORT = "report"


@dataclass(frozen=True)
class Named:
    """Whom or what the command line names."""

    scope: str  # subject, samples, class
    targets: Any

    @property
    def words(self) -> str:
        """`2 persons`, `1 sample`: it may be said aloud, for it names nobody."""
        count = 1 if isinstance(self.targets, dict) else len(self.targets)
        return f"{count} {WORDS[self.scope][count != 1]}"


WORDS = {"subject": ("person", "persons"), "samples": ("sample", "samples"), "class": ("class", "classes")}

OPTIONS = {"subject": "--subject", "samples": "--sample", "class": "--class"}


def named(
    api: Client,
    subjects: Sequence[str],
    subject_file: Path | None,
    same_person: bool,
    samples: Sequence[str],
    classes: Sequence[str],
    models: Sequence[str],
) -> Named:
    """The scope and targets; a class by name is looked for in `models`, ids of which these are."""
    persons: list[Any] = [*subjects, *(_lines(subject_file) if subject_file else ())]
    given = {"subject": persons, "samples": list(samples), "class": list(classes)}
    chosen = [scope for scope, targets in given.items() if targets]
    if len(chosen) > 1:
        kinds = " and ".join(OPTIONS[scope] for scope in chosen)
        raise typer.BadParameter(f"only one of {kinds}: a request is about persons, samples or classes")
    if not chosen:
        raise typer.BadParameter("say whom to forget: --subject (or --subject-file), --sample, or --class")
    (scope,) = chosen
    if same_person and scope != "subject":
        raise typer.BadParameter("--same-person is about --subject")
    if same_person:
        flat = [text for one in persons for text in (one["any_of"] if isinstance(one, dict) else [one])]
        return Named(scope, [{"any_of": flat}])
    if scope == "class":
        return Named(scope, [class_id(api, text, models) for text in classes])
    return Named(scope, given[scope])


def class_id(api: Client, text: str, models: Sequence[str]) -> str:
    """The id of a class given by id, or by its name in one of these models."""
    if text.startswith("cls_"):
        return text
    if not models:
        raise typer.BadParameter(f"which model's {text}? Say --model, or the id of the class")
    for model in models:
        for found in api.items(f"models/{model}/classes"):
            if found["name"] == text:
                return str(found["id"])
    raise NoSuch(f"no class of that model is called {text}")


def fields(
    api: Client,
    models: Sequence[str],
    due: str | None,
    rows: str | None,
    callback_url: str | None,
    callback_secret_file: Path | None,
    **plain: str | None,
) -> dict[str, Any]:
    """The other fields of the request's body."""
    if (callback_url is None) != (callback_secret_file is None):
        raise typer.BadParameter("a callback has both: --callback-url and --callback-secret-file")
    callback = None
    if callback_url is not None and callback_secret_file is not None:
        callback = {"url": callback_url, "secret": callback_secret_file.read_text().strip()}
    method = plain.pop("method", None)
    return {
        **{name: None if value is None else str(value) for name, value in plain.items()},
        "models": list(models) or None,
        "due_at": f"{due}T00:00:00Z" if due is not None and len(due) == len("2026-01-31") else due,
        "rows": dataset_id(api, rows) if rows else None,
        "method": {"name": method} if method else None,
        "callback": callback,
    }


def model_ids(api: Client, models: Sequence[str] | None) -> list[str]:
    """The ids of models given by name or id."""
    return [model_id(api, one) for one in models or ()]


def _lines(file: Path) -> list[Any]:
    """One person a line; identifiers of one person with tabs between them."""
    text = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
    found: list[Any] = []
    for line in filter(str.strip, text.splitlines()):
        parts = [part.strip() for part in line.split(BETWEEN) if part.strip()]
        found.append(parts[0] if len(parts) == 1 else {"any_of": parts})
    return found
