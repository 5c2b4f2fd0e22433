"""`palimpsest certificate key`: the keys that sign certificates, on the machine of the service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.options import DataDir, Exit, Format, Output, Yes, confirm
from app.cli.service import opened
from app.cli.show import say, show_list, show_one

app = typer.Typer(name="key", help="Keys that sign certificates.", no_args_is_help=True)

COLUMNS = ("id", "tenant", "public_key", "created_at", "retired_at", "revoked_at")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of the signing key.")]


@app.command("list")
def list_(output: Output = Format.TABLE, data_dir: DataDir = None) -> None:
    """List the keys, ended ones included."""
    from app.services.certificates import keys

    with opened(data_dir) as service:
        show_list(keys.published(service, tenants=True), COLUMNS, output)


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Name of the tenant.")] = "default",
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Make a key that signs from now on; the one before is retired."""
    from app.services.callers.access import tenants
    from app.services.certificates import keys

    with opened(data_dir) as service:
        found = [row for row in tenants(service) if row.name == tenant]
        if not found:
            say(f"palimpsest: no tenant is called {tenant}")
            raise typer.Exit(Exit.NOT_FOUND)
        show_one(keys.public(keys.renew(service, found[0].id)), output)


@app.command()
def retire(key: KeyId, output: Output = Format.TABLE, data_dir: DataDir = None) -> None:
    """Let a key sign no more; what it signed stays valid."""
    _end(key, "retire", output, data_dir)


@app.command()
def revoke(key: KeyId, yes: Yes = False, output: Output = Format.TABLE, data_dir: DataDir = None) -> None:
    """Say that nothing a key signed is to be trusted."""
    confirm(f"Revoke {key}? Every certificate that it signed becomes invalid.", yes)
    _end(key, "revoke", output, data_dir)


def _end(key: str, how: str, output: Format, data_dir: Any) -> None:
    from app import ids
    from app.errors import NotFound
    from app.services.certificates import keys

    try:
        key_id = ids.decode("sgk", key)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with opened(data_dir) as service:
        try:
            row = (keys.retire if how == "retire" else keys.revoke)(service, key_id)
        except NotFound as error:
            say(f"palimpsest: {error.detail}")
            raise typer.Exit(Exit.NOT_FOUND) from None
        show_one(keys.public(row), output)
