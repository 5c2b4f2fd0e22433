"""`palimpsest certificate`: what a forget came to, checked and made again on any machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import signing_keys
from app.cli.options import DataDir, Exit, Format, Output
from app.cli.service import opened
from app.cli.show import say, show_list, show_one

if TYPE_CHECKING:
    from app.proof.verify import PublicKey

app = typer.Typer(
    name="certificate", help="Certificates: what a forget came to, signed.", no_args_is_help=True
)

app.add_typer(signing_keys.app)

Certificate = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The certificate.")
]
KEYS = "The published keys: a file of GET /v1/certificate-keys, a PEM file, or 32 bytes in base64."
UNCHECKED = (
    "the signature of {file} was not checked: what is compared may have been altered. Say --key KEYS, or run "
    "`palimpsest certificate verify` on it"
)
EXITS = {"equal": Exit.DONE, "different": Exit.FAILED, "cannot": Exit.NOT_FOUND}
WORST_FIRST = ("different", "cannot", "equal")


@app.command()
def verify(
    file: Certificate,
    key: Annotated[str, typer.Option("--key", help=KEYS)],
    output: Output = Format.TABLE,
) -> None:
    """Check a certificate, or a signed line, without the service; exit code 1 where it is not valid."""
    from app.proof.verify import Refused, check

    keys = _keys(key)
    try:
        content = check(file.read_bytes(), keys)
    except Refused as refused:
        show_one({"valid": False, "reason": str(refused)}, output)
        raise typer.Exit(Exit.FAILED) from None
    show_one({"valid": True, **_summary(content)}, output)


@app.command()
def reproduce(
    file: Certificate,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of rows that `palimpsest dataset export` wrote."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help=f"With --data, check the signature first. {KEYS}")
    ] = None,
    service: Annotated[
        bool, typer.Option("--service", help="From the rows that the service on this machine stores.")
    ] = False,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Make the versions of a certificate again and compare them with what it says.

    Exit code 0: equal; 1: different, or the signature is not valid; 3: cannot, for lack of rows. The
    signature is checked with --key, and with --service, which has its own keys.
    """
    if (data is None) != service:
        raise typer.BadParameter("say where the rows are: --data DIR, or --service")
    if data is None:
        if key is not None:
            raise typer.BadParameter("goes with --data; --service has its own keys", param_hint="--key")
        _testify(file, data_dir)
        return
    from app.proof.reproduce import reproduce as again

    if key is None:
        say(f"palimpsest: {UNCHECKED.format(file=file)}")
    else:
        _signed(file, _keys(key))
    content = _content(file)
    verdicts = again(content, data)
    models = {one["replacing"]["version"]: one["model"] for one in content["versions"] if one["replacing"]}
    rows = [
        {
            "model": models[one.version],
            "version": one.number,
            "id": one.version,
            "outcome": one.outcome,
            "reason": one.reason,
        }
        for one in verdicts
    ]
    show_list(rows, ("model", "version", "id", "outcome", "reason"), output)
    _end({verdict.outcome for verdict in verdicts})


def _testify(file: Path, data_dir: Path | None) -> None:
    """Print a signed line; nothing is written."""
    from app.services.certificates import witness

    with opened(data_dir) as service:
        line = witness.testify(service, _signed(file, _published(service)))
    typer.echo(line.decode(), nl=sys.stdout.isatty())  # a file of it is the signed text, byte for byte
    _end({json.loads(line)["outcome"]})


def _end(outcomes: set[str]) -> None:
    worst = next((name for name in WORST_FIRST if name in outcomes), None)
    if worst is None:
        say("no version replaced another: there is nothing to make again")
        return
    raise typer.Exit(EXITS[worst])


def _signed(file: Path, keys: list[PublicKey]) -> dict[str, Any]:
    """What a file says that one of these keys signed; another ends the command."""
    from app.proof.verify import Refused, check

    try:
        return check(file.read_bytes(), keys)
    except Refused as refused:
        say(f"palimpsest: {refused}")
        raise typer.Exit(Exit.FAILED) from None


def _keys(text: str) -> list[PublicKey]:
    """Keys from a file of that name, or from the text itself."""
    from app.proof.verify import NoKey, read_keys

    path = Path(text)
    try:
        return read_keys(path.read_bytes() if path.is_file() else text.encode())
    except NoKey as error:
        raise typer.BadParameter(str(error), param_hint="--key") from None


def _published(service: Any) -> list[PublicKey]:
    from app.proof.verify import read_keys
    from app.services.certificates import keys

    listed = keys.published(service)
    if not listed:
        say("palimpsest: this service has signed nothing")
        raise typer.Exit(Exit.NOT_FOUND)
    return read_keys(json.dumps(listed).encode())


def _content(file: Path) -> dict[str, Any]:
    from app.proof.canonical import NotCanonical, parse

    try:
        content = parse(file.read_bytes())
    except NotCanonical as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    if not isinstance(content, dict) or content.get("format") != "palimpsest-certificate/1":
        raise typer.BadParameter(f"{file} is no certificate")
    return content


def _summary(content: dict[str, Any]) -> dict[str, Any]:
    """What a reader wants to see of a text that is valid."""
    found = {"format": content["format"], "key": content["signed_by"]["key"]}
    if "claim" not in content:
        return {**found, "certificate": content.get("certificate"), "outcome": content.get("outcome")}
    return {
        **found,
        "certificate": content["id"],
        "request": content["request"]["id"],
        "issued_at": content["issued_at"],
        **content["claim"],
    }
