"""The `palimpsest` command: its groups, and errors as one line and an exit code."""

from __future__ import annotations

import sys

import typer

from app.cli import (
    admin,
    aliases,
    backups,
    certificates,
    datasets,
    forget,
    jobs,
    models,
    predictions,
    running,
    updates,
    versions,
)
from app.cli.options import Exit, NoSuch
from app.cli.show import say
from app.client import Problem, Unreachable
from app.config import ConfigError

app = typer.Typer(
    name="palimpsest",
    help="Models that keep learning and can forget. Start with `palimpsest serve`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
running.add_to(app)
backups.add_to(app)
for group in (
    admin.db,
    admin.config,
    admin.tenant,
    admin.audit,
    models.app,
    datasets.app,
    updates.app,
    versions.app,
    aliases.app,
    jobs.app,
    forget.app,
    certificates.app,
):
    app.add_typer(group)
app.command("predict")(predictions.predict)
app.command("methods")(updates.methods)


def main() -> None:
    """Run the command line; what goes wrong is one line on standard error."""
    try:
        app()
    except ConfigError as error:
        _end(str(error), Exit.USAGE)
    except (running.Refused, Unreachable) as error:
        _end(str(error), Exit.FAILED)
    except NoSuch as error:
        _end(str(error), Exit.NOT_FOUND)
    except TimeoutError as error:
        _end(str(error), Exit.TIMEOUT)
    except OSError as error:  # a file that cannot be read or written
        _end(f"{error.filename or 'the system'}: {error.strerror or error}", Exit.USAGE)
    except Problem as problem:
        for fault in problem.errors:
            say(f"  {fault.get('pointer', '')}: {fault.get('message', '')}")
        for path in problem.related:
            say(f"  see {path}")
        _end(str(problem), exit_code(problem))


def exit_code(problem: Problem) -> Exit:
    """The exit code that says what kind of refusal it was."""
    if problem.code in ("gate-failed", "refused-by-gate"):
        return Exit.REFUSED_BY_GATE
    if problem.status in (404, 410):
        return Exit.NOT_FOUND
    if problem.status in (409, 412):
        return Exit.CONFLICT
    return Exit.USAGE if problem.status in (400, 422) else Exit.FAILED


def _end(message: str, code: Exit) -> None:
    say(f"palimpsest: {message}")
    sys.exit(code)
