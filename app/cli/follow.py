"""Following a job from the terminal: a bar while it runs, its end as an exit code."""

from __future__ import annotations

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


def follow(
    api: Client, job: Json, output: Format, timeout: float | None, asked_alias: str | None = None
) -> Exit:
    """Wait for a job with a bar, print it, and answer the exit code of its end."""
    title = str(job["kind"])
    done = draw(api, job["id"], title, timeout) if output is Format.TABLE else api.wait(job["id"], timeout)
    show_one(done, output)
    if done["state"] != "succeeded":
        error = done.get("error") or {}
        say(f"{done['id']} {done['state']}: {error.get('detail') or error.get('cause') or 'no result'}")
        return Exit.FAILED
    if asked_alias is not None and (done.get("result") or {}).get("alias") != asked_alias:
        say(f"a gate kept {asked_alias} where it was; the version is ready")
        return Exit.REFUSED_BY_GATE
    return Exit.DONE
