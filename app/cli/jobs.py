"""`palimpsest job`: queued runs."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.follow import end
from app.cli.options import DataDir, Format, Key, Output, Timeout, Url, Wait, connect, model_id
from app.cli.show import show_list, show_one

app = typer.Typer(name="job", help="Jobs: queued runs.", no_args_is_help=True)

COLUMNS = ("id", "kind", "state", "progress.fraction", "attempt", "model", "created_at")

Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model, by name or id.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """List jobs, oldest first."""
    with connect(data_dir, url) as api:
        of_model = model_id(api, model) if model else None
        show_list(api.items("jobs", state=state, model=of_model, kind=kind), COLUMNS, output)


@app.command()
def get(job: Job, output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """Show one job."""
    with connect(data_dir, url) as api:
        show_one(api.get(f"jobs/{job}"), output)


@app.command()
def watch(
    job: Job,
    timeout: Timeout = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Follow a job with a progress bar until it is done."""
    with connect(data_dir, url) as api:
        end(api, api.get(f"jobs/{job}"), output, wait=True, timeout=timeout)


@app.command()
def cancel(
    job: Job,
    wait: Wait = False,
    timeout: Timeout = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Ask a job to stop at its next safe point."""
    with connect(data_dir, url) as api:
        answer = api.post(f"jobs/{job}/cancel", key=idempotency_key)
        show_one(api.wait(job, timeout) if wait else answer, output)


@app.command()
def retry(
    job: Job,
    wait: Wait = False,
    timeout: Timeout = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Queue a failed or cancelled job anew, as another job."""
    with connect(data_dir, url) as api:
        answer = api.post(f"jobs/{job}/retry", key=idempotency_key)
        end(api, answer, output, wait=wait, timeout=timeout)
