"""`palimpsest forget`: erase a person, samples or a class, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import forget_decisions
from app.cli.forget_options import Accept, Named, Regulation, SharedRows, fields, model_ids, named
from app.cli.forget_show import DONE, claim_of, closure, follow, model_names, save, summary, verdict
from app.cli.options import DataDir, Exit, Format, Key, Output, Timeout, Url, Yes, connect
from app.cli.show import draw, dump, say, show_one
from app.cli.updates import CreateByDefault
from app.client import Client, Json

HELP = "Erase a person, samples or a class, exactly; `palimpsest forget --subject …` without a verb creates."

app = typer.Typer(name="forget", help=HELP, cls=CreateByDefault, no_args_is_help=True)

Wait = Annotated[bool, typer.Option("--wait", help="Draw the stages until the request is done.")]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        dir_okay=False,
        help="Wait, and write the certificate there; to a name in .html the page to print, and .json beside.",
    ),
]


@app.callback()
def group() -> None:
    """Erase a person, samples or a class, exactly; `palimpsest forget --subject …` without a verb creates."""


@app.command()
def create(
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="A person, as the rows name them; repeatable. Others on this machine can see it in the list "
            "of processes: --subject-file keeps it out of there."
        ),
    ] = None,
    subject_file: Annotated[
        Path | None,
        typer.Option(help="File with a person a line, tabs between identifiers of one; `-`: standard input."),
    ] = None,
    same_person: Annotated[
        bool, typer.Option("--same-person", help="All of --subject are one person by several identifiers.")
    ] = False,
    sample: Annotated[list[str] | None, typer.Option(help="Id of a sample; repeatable.")] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Id of a class, or its name in --model; repeatable.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model, by name or id; repeatable. Default: all.")
    ] = None,
    shared_rows: Annotated[
        SharedRows | None, typer.Option(help="Rows that name other persons too: default erase.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How models are cleaned; default auto.")] = None,
    accept: Annotated[
        Accept | None, typer.Option(help="The weakest guarantee that will do; default exact.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Dataset sent with --for-forget, where the rows were not retained.")
    ] = None,
    regulation: Annotated[Regulation | None, typer.Option(help="Sets when it is due; default gdpr.")] = None,
    due: Annotated[str | None, typer.Option(help="When it is due: 2026-12-31, or a time with zone.")] = None,
    external_id: Annotated[
        str | None, typer.Option(help="Your own name for the request; not a person's.")
    ] = None,
    callback_url: Annotated[str | None, typer.Option(help="Who is told of each step, by https.")] = None,
    callback_secret_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File with the whsec_… secret that signs callbacks."),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only show what it would touch; nothing is stored.")
    ] = False,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    certificate: Certificate = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Show what an erasure would touch, ask, and do it.

    palimpsest forget --subject ada@example.org --wait --certificate ada.html
    """
    with connect(data_dir, url) as api:
        models = model_ids(api, model)
        whom = named(api, subject or (), subject_file, same_person, sample or (), class_ or (), models)
        if subject_file == Path("-") and not (yes or preview):
            raise typer.BadParameter("standard input holds the names, so there is nobody to ask: say --yes")
        more = fields(
            api,
            models,
            due,
            rows,
            callback_url,
            callback_secret_file,
            method=method,
            shared_rows=shared_rows,
            accept=accept,
            regulation=regulation,
            external_id=external_id,
        )
        if preview or not yes or output is Format.TABLE:
            _show(api, whom, more, output, asked_for=preview)
        if preview:
            return
        _confirm(whom, yes)
        request = api.forget(whom.targets, whom.scope, key=idempotency_key, **more)
        _finish(api, request, output, wait=wait, timeout=timeout, certificate=certificate)


@app.command()
def watch(
    request: forget_decisions.Request,
    timeout: Timeout = None,
    certificate: Certificate = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Draw the stages of a request until it is done, and say what may be claimed."""
    with connect(data_dir, url) as api:
        found = api.get(f"forget-requests/{request}")
        _finish(api, found, output, wait=True, timeout=timeout, certificate=certificate)


forget_decisions.add_to(app)


def _show(api: Client, whom: Named, more: dict[str, Any], output: Format, *, asked_for: bool) -> None:
    """Draw what it would touch; as data only where that was all that was asked for."""
    found = api.preview(whom.targets, whom.scope, **more)
    if output is Format.TABLE:
        draw(closure(found, _sentence(whom, more)))
    elif asked_for:
        dump(found)


def _sentence(whom: Named, more: dict[str, Any]) -> str:
    models = more["models"]
    where = f"in {len(models)} model{'s' * (len(models) != 1)} only" if models else "everywhere"
    due = f", by {more['due_at'][:10]}" if more["due_at"] else ""
    law = f", as {more['regulation']} asks" if more["regulation"] else ""
    return f"Forget {whom.words} {where}{law}{due}:"


def _confirm(whom: Named, yes: bool) -> None:
    """Have the words typed, unless told not to ask; anything else ends the command."""
    words = f"forget {whom.words}"
    if not yes and typer.prompt(f"This cannot be undone. Type «{words}» to go on", err=True) != words:
        say("Nothing was done.")
        raise typer.Exit(Exit.FAILED)


def _finish(
    api: Client,
    request: Json,
    output: Format,
    *,
    wait: bool,
    timeout: float | None,
    certificate: Path | None,
) -> None:
    """Print a request as it is, or follow it, write its certificate, and say what it came to."""
    people = output is Format.TABLE
    if not wait and certificate is None:
        show_one(summary(request, model_names(api, request)) if people else request, output)
        return
    id = str(request["id"])
    if request["state"] == "awaiting-approval":
        say(f"{id} waits for approval: palimpsest forget approve {id}")
    done = follow(api, id, timeout) if people else api.wait_forget(id, timeout)
    signed = api.certificate(id) if done["state"] in DONE else None
    claim = claim_of(signed) if signed else None
    show_one(summary(done, model_names(api, done)) if people else {**done, "claim": claim}, output)
    if signed is not None and certificate is not None:
        for file in save(api, id, signed, certificate):
            say(f"written to {file}")
    raise typer.Exit(verdict(done, claim))
