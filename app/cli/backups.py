"""`palimpsest backup` and `restore`: on the machine of the service, with a bar while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.cli.options import DataDir, Exit, Format, Output, Yes, confirm, settings
from app.cli.show import say, show_one

if TYPE_CHECKING:
    from app.service import Service


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (backup, restore):
        app.command()(command)


def backup(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Write the rows of every table and the encrypted files that they name. The service may run meanwhile.

    Keys and ledger are not in it: mirror their directory (`config show`: files.keys) so that deletions
    follow, and never archive it. Without it a backup opens nothing.
    """
    from app.services.backups import backup as backups

    with _opened(data_dir) as (service, tell):
        manifest = backups.write(service, folder, tell)
    found = manifest.model_dump(mode="json")
    show_one({**found, "rows": sum(manifest.rows.values())}, output)
    if manifest.missing:
        say(
            "missing: files that are named still and that an erasure destroyed; nothing that can be had is "
            "left out"
        )


def restore(
    folder: Annotated[Path, typer.Argument(help="The backup.")],
    newer: Annotated[
        list[Path] | None, typer.Option("--newer", help="A later backup, whose files may be needed.")
    ] = None,
    yes: Yes = False,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Load a backup into an empty database, then take out again what was erased after it.

    The directory of keys and ledger must be there as it is now; it is never rolled back. `palimpsest serve`
    then rebuilds what held erased rows, and is not ready before that.
    """
    from app.services.backups import restore as restores

    confirm(f"Restore {folder} into the database of these settings?", yes)
    with _opened(data_dir) as (service, tell):
        report = restores.restore(service, folder, newer or [], tell)
    show_one(report, output)
    say("start the service: it is ready once nothing that was erased is left")


@contextmanager
def _opened(data_dir: Path | None) -> Iterator[tuple[Service, Callable[[int, int, str], None]]]:
    """The service without a server, and a bar; a refusal is one line and an exit code."""
    from app.errors import AppError
    from app.service import open_service

    service = open_service(settings(data_dir))
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
    )
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            shown = {}

            def tell(done: int, total: int, what: str) -> None:
                if what not in shown:
                    shown[what] = bars.add_task(what, total=total)
                bars.update(shown[what], completed=done + 1, total=total)

            yield service, tell
    except AppError as error:
        say(f"palimpsest: {error.detail}")
        raise typer.Exit(Exit.CONFLICT if error.status == 409 else Exit.USAGE) from None
    finally:
        service.close()
