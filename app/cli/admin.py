"""`palimpsest db`, `config`, `tenant`, `audit`: what an operator does on the machine of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import typer

from app import config as configuration
from app.cli.options import DataDir, Exit, Format, Output, Url, Yes, confirm, connect, settings
from app.cli.show import say, show_list, show_one

if TYPE_CHECKING:
    from app.db import Database

db = typer.Typer(name="db", help="The schema of the database.", no_args_is_help=True)
config = typer.Typer(name="config", help="Settings and where they come from.", no_args_is_help=True)
tenant = typer.Typer(name="tenant", help="Tenants: owners of everything else.", no_args_is_help=True)
audit = typer.Typer(name="audit", help="The record of who changed what.", no_args_is_help=True)


@db.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go to.")] = "head", data_dir: DataDir = None
) -> None:
    """Bring the database to the newest schema, or to a revision."""
    from app.services import schema

    with database(data_dir) as found:
        schema.upgrade(found, revision)
        say(f"the database is at {schema.current(found)}")


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go back to; base is an empty database.")],
    yes: Yes = False,
    data_dir: DataDir = None,
) -> None:
    """Take the database back to an older schema."""
    from app.services import schema

    confirm(f"Go back to {revision}? What newer tables and columns hold is lost.", yes)
    with database(data_dir) as found:
        schema.downgrade(found, revision)
        say(f"the database is at {schema.current(found) or 'base: it is empty'}")


@db.command()
def current(data_dir: DataDir = None) -> None:
    """Show the revision of the database and the one this release needs; exit code 1 where they differ."""
    from app.services import schema

    with database(data_dir) as found:
        revision = schema.current(found)
    typer.echo(f"{revision or 'empty'} (this release needs {schema.head()})")
    if revision != schema.head():
        raise typer.Exit(Exit.FAILED)


@contextmanager
def database(data_dir: Path | None) -> Iterator[Database]:
    """The database of the settings; an embedded one may not exist yet."""
    from app.db import connect as open_database

    chosen = settings(data_dir)
    chosen.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = open_database(chosen.database_url)
    try:
        yield found
    finally:
        found.close()


@config.command("show")
def show(output: Output = Format.TABLE, data_dir: DataDir = None) -> None:
    """Show every setting, its value with secrets as stars, and who gave it."""
    loaded = configuration.load({"data_dir": data_dir})
    tree = loaded.settings.model_dump(mode="json")
    rows = []
    for name, path in configuration.names().items():
        value: Any = tree
        for part in path:
            value = value[part]
        dotted = ".".join(path)
        source = loaded.sources.get(dotted, "default")
        rows.append({"setting": dotted, "value": redacted(value), "source": source, "environment": name})
    show_list(rows, ("setting", "value", "source", "environment"), output)


def redacted(value: Any) -> Any:
    """The value, with the password of a URL as stars."""
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{':***' if colon else ''}{at}{host}"))


@tenant.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="Name of the tenant.")],
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Make a tenant with its HMAC key, and print its first API key; it is shown once."""
    from app import ids
    from app.errors import AppError
    from app.service import open_service
    from app.services.callers.access import create_tenant as create

    service = open_service(settings(data_dir))
    try:
        row, token = create(service, name)
    except AppError as error:
        say(f"palimpsest: {error.detail}")
        raise typer.Exit(Exit.CONFLICT if error.status == 409 else Exit.USAGE) from None
    finally:
        service.close()
    show_one({"name": row.name, "id": ids.encode("tnt", row.id), "api_key": token}, output)


@audit.command()
def verify(output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """Recompute the chain of audit events; exit code 1 where a link is broken."""
    with connect(data_dir, url) as api:
        verdict = api.get("audit-events/verify")
    show_one(verdict, output)
    if not verdict["intact"]:
        raise typer.Exit(Exit.FAILED)
