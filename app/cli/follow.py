"""Following a job from the terminal: a bar while it runs, its end as an exit code."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli.options import Exit, Format
from app.cli.show import Json, say, show_one
from app.client import Client


def draw(api: Client, job: str, title: str, timeout: float | None = None) -> Json:
    """Draw a progress bar from the job's events until it is done; answers the job.

    Raises `TimeoutError` where it takes longer than `timeout` seconds.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[phase]}"),
        console=Console(stderr=True),
    ) as bars:
        bar = bars.add_task(title, total=1.0, phase="")
        for event in api.events(job, timeout):
            if event.name == "progress":
                phase = event.data.get("message") or event.data.get("phase") or ""
                bars.update(bar, completed=event.data.get("fraction") or 0.0, phase=phase)
        done = api.get(f"jobs/{job}")
        bars.update(bar, completed=1.0 if done["state"] == "succeeded" else None, phase=done["state"])
    return done


def end(
    api: Client, job: Json, output: Format, *, wait: bool, timeout: float | None, alias: str | None = None
) -> None:
    """Print a job at once, or follow it to its end and exit by what became of it.

    `alias` is the one that the job was asked to move.
    """
    if not wait:
        show_one(job, output)
        return
    kind = str(job["kind"])
    if output is Format.TABLE:
        done = draw(api, job["id"], kind, timeout)
        show_one(summary(done), output)
    else:
        done = api.wait(job["id"], timeout)
        show_one(done, output)
    raise typer.Exit(verdict(done, alias))


def summary(job: Json) -> Json:
    """What people want to know of a job that is done; the rest is in `palimpsest job get`."""
    result = dict(job.get("result") or {})
    metrics = result.pop("metrics", None) or {}
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return {"job": job["id"], "state": job["state"], **result, **numbers}


def verdict(job: Json, alias: str | None) -> Exit:
    """The exit code that says how a job ended, with a line where it is not what was asked for."""
    if job["state"] != "succeeded":
        error = job.get("error") or {}
        say(f"{job['id']} {job['state']}: {error.get('detail') or error.get('cause') or 'no result'}")
        return Exit.FAILED
    if alias is not None and (job.get("result") or {}).get("alias") != alias:
        say(f"{alias} stays where it is; the version is ready: see gates in the result")
        return Exit.REFUSED_BY_GATE
    return Exit.DONE
