"""The verbs of `palimpsest forget`: look at requests and decide about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.forget_show import save, summary
from app.cli.options import (
    DataDir,
    Format,
    Key,
    Output,
    Url,
    Yes,
    confirm,
    connect,
    dataset_id,
    model_id,
)
from app.cli.show import say, show_list, show_one

COLUMNS = ("id", "state", "persons", "due_at", "days_left", "overdue", "hold.reason", "external_id")
DELIVERIES = ("id", "event", "state", "attempts", "last_status", "last_error", "next_at", "replay_of")

Request = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the forget request.")]
Reason = Annotated[
    str, typer.Option(help="Why; shown with the request and kept as it is, in the clear: name no person.")
]


def list_(
    state: Annotated[str | None, typer.Option(help="Only requests in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those that touch this model.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Only requests of this name.")] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those past their due date.")] = False,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """List forget requests, oldest first, with the days that are left."""
    with connect(data_dir, url) as api:
        of_model = model_id(api, model) if model else None
        found = api.items("forget-requests", state=state, model=of_model, external_id=external_id)
        show_list((one for one in found if one["overdue"] or not overdue), COLUMNS, output)


def get(request: Request, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """Show one request: its stages, what it touches, when it is due."""
    with connect(data_dir, url) as api:
        show_one(api.get(f"forget-requests/{request}"), output)


def approve(
    request: Request,
    yes: Yes = False,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Enter the erasure into the ledger and begin it."""
    confirm(f"Approve {request}? It cannot be undone once a job has begun.", yes)
    _decide(request, "approve", None, idempotency_key, output, data_dir, url)


def reject(
    request: Request,
    reason: Reason,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Refuse a request that waits for approval; its rows may be used again."""
    _decide(request, "reject", {"reason": reason}, idempotency_key, output, data_dir, url)


def cancel(
    request: Request,
    reason: Annotated[
        str | None, typer.Option(help="Why; kept as it is, in the clear: name no person.")
    ] = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Withdraw a request before a job has taken it up."""
    body = {"reason": reason} if reason else None
    _decide(request, "cancel", body, idempotency_key, output, data_dir, url)


def extend(
    request: Request,
    reason: Reason,
    months: Annotated[int | None, typer.Option(min=1, max=2, help="Of gdpr; default 2.")] = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Put the due date off, once."""
    body: dict[str, Any] = {"reason": reason, **({"months": months} if months else {})}
    _decide(request, "extend", body, idempotency_key, output, data_dir, url)


def hold(
    request: Request,
    reason: Reason,
    until: Annotated[str | None, typer.Option(help="When it ends by itself: a time with zone.")] = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Suspend the erasure for a legal duty to keep; the rows stay restricted. It takes the place of a hold
    that is there."""
    body = {"reason": reason, **({"until": until} if until else {})}
    with connect(data_dir, url) as api:
        before = api.get(f"forget-requests/{request}")["hold"]
    if before is not None:
        say(f"{request} is on hold already, for «{before['reason']}»: this takes its place")
    _decide(request, "hold", body, idempotency_key, output, data_dir, url)


def release(
    request: Request,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """End a legal hold; an approved erasure goes on."""
    _decide(request, "release", None, idempotency_key, output, data_dir, url)


def retry(
    request: Request,
    rows: Annotated[
        str | None, typer.Option(help="Dataset sent with --for-forget, where the rows were not retained.")
    ] = None,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Let versions go that only rows nobody has could clean.")
    ] = False,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Try a failed request again: a new job for each model whose job failed."""
    with connect(data_dir, url) as api:
        body: dict[str, Any] = {"rows": dataset_id(api, rows)} if rows else {}
    body |= {"withdraw": True} if withdraw else {}
    _decide(request, "retry", body or None, idempotency_key, output, data_dir, url)


def certificate(
    request: Request,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; a name in .html gets the page to print, and .json beside it."),
    ] = None,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Take the certificate of a completed request, byte for byte as it was signed."""
    with connect(data_dir, url) as api:
        signed = api.certificate(request)
        if out is None:
            typer.echo(signed, nl=False)
            return
        for file in save(api, request, signed, out):
            say(f"written to {file}")


def deliveries(
    request: Request,
    replay: Annotated[str | None, typer.Option(help="Send this message again, by its id.")] = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Show every message to the request's callback and what became of it."""
    with connect(data_dir, url) as api:
        if replay is not None:
            show_one(api.post(f"deliveries/{replay}/replay"), output)
            return
        show_list(api.get(f"forget-requests/{request}/deliveries")["items"], DELIVERIES, output)


def add_to(app: typer.Typer) -> None:
    """Make commands of them."""
    app.command("list")(list_)
    for verb in (get, approve, reject, cancel, extend, hold, release, retry, certificate, deliveries):
        app.command()(verb)


def _decide(
    request: str,
    verb: str,
    body: dict[str, Any] | None,
    key: str | None,
    output: Format,
    data_dir: Path | None,
    url: str | None,
) -> None:
    with connect(data_dir, url) as api:
        found = api.post(f"forget-requests/{request}/{verb}", body, key=key)
    people = summary(found) | ({"hold": found["hold"]} if found["hold"] else {})
    show_one(people if output is Format.TABLE else found, output)
