"""`palimpsest dataset`: rows with labels, sent once and never appended to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.follow import end
from app.cli.options import (
    DataDir,
    Format,
    Key,
    Output,
    Timeout,
    Url,
    Wait,
    Yes,
    confirm,
    connect,
    dataset_id,
    model_id,
)
from app.cli.show import show_list, show_one

app = typer.Typer(name="dataset", help="Datasets: rows with labels, sent once.", no_args_is_help=True)

COLUMNS = ("id", "name", "format", "rows", "shape", "created_at")

MADE_FROM = ("train", "select")  # roles of rows that a version is a function of

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of the dataset.")]


class OnInvalid(StrEnum):
    """What becomes of rows that cannot be used."""

    REJECT = "reject"
    QUARANTINE = "quarantine"


class Split(StrEnum):
    """What rows are for."""

    TRAIN = "train"
    EVAL = "eval"


@app.command()
def create(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help=".npz .npy .safetensors .parquet .csv .jsonl .ndjson .json or .zip of images",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name to show; default the file's.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of every row, for files without labels.")] = None,
    split: Annotated[Split | None, typer.Option(help="What the rows are for, where they do not say.")] = None,
    on_invalid: Annotated[
        OnInvalid | None, typer.Option(help="Refuse the file, or leave bad rows out.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name or id of a model whose update policy is to learn the rows.")
    ] = None,
    reconsent: Annotated[
        bool, typer.Option("--reconsent", help="Take rows of erased persons, who agreed again; audited.")
    ] = False,
    for_forget: Annotated[
        bool,
        typer.Option(
            "--for-forget", help="Rows sent again only to be forgotten: `palimpsest forget retry --rows`."
        ),
    ] = False,
    content_type: Annotated[str | None, typer.Option(help="Format, where the name does not say it.")] = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Send a file of rows."""
    with connect(data_dir, url) as api:
        answer = api.send(
            file,
            content_type,
            key=idempotency_key,
            name=name or file.stem,
            label=label,
            split=split,
            on_invalid=on_invalid,
            reconsent=reconsent or None,
            for_forget=for_forget or None,
            model=model_id(api, model) if model else None,
        )
        show_one(answer, output)


@app.command("list")
def list_(output: Output = Format.TABLE, data_dir: DataDir = None, url: Url = None) -> None:
    """List datasets, oldest first."""
    with connect(data_dir, url) as api:
        show_list(api.items("datasets"), COLUMNS, output)


@app.command()
def get(
    dataset: Dataset,
    report: Annotated[
        bool, typer.Option("--report", help="Show what was accepted and what was not.")
    ] = False,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Show one dataset."""
    with connect(data_dir, url) as api:
        path = f"datasets/{dataset_id(api, dataset)}"
        show_one(api.get(f"{path}/report" if report else path), output)


@app.command()
def delete(
    dataset: Dataset,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Destroy a dataset's rows and keys by a job; versions that used it stay."""
    with connect(data_dir, url) as api:
        found = dataset_id(api, dataset)
        confirm(f"Destroy the rows of {dataset}?", yes)
        job = api.call("DELETE", f"datasets/{found}").json()
        end(api, job, output, wait=wait, timeout=timeout)


@app.command()
def export(
    model: Annotated[str, typer.Option(help="Name or id of the model.")],
    version: Annotated[int, typer.Option(help="Number of the version that was made from the rows.")],
    out: Annotated[Path, typer.Option(help="Folder to write to, made where it is not there.")] = Path(),
    recipient: Annotated[
        str | None, typer.Option(help="Who gets the rows: a forget request will list them.")
    ] = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Write the rows that a version was made from, as it read them: one file per dataset.

    With them `palimpsest certificate reproduce` makes the version again on any machine. Every file that
    leaves is written down.
    """
    with connect(data_dir, url) as api:
        found = model_id(api, model)
        read = api.get(f"models/{found}/versions/{version}")
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for dataset in sorted({use["dataset"] for use in read["datasets"] if use["role"] in MADE_FROM}):
            path = out / f"{dataset}.{read['id']}.npz"
            api.download(
                f"datasets/{dataset}/export", path, model=found, version=version, recipient=recipient
            )
            written.append({"dataset": dataset, "file": str(path), "bytes": path.stat().st_size})
        show_list(written, ("dataset", "file", "bytes"), output)
