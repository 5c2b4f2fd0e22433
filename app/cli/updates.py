"""`palimpsest update`: teach a model; and the catalogue of methods with their flags."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.cli.follow import end
from app.cli.models import Model, value_of
from app.cli.options import DataDir, Format, Key, Output, Timeout, Url, Wait, connect, dataset_id, model_id
from app.cli.show import dump, show_list
from app.client import Client, Json


class CreateByDefault(TyperGroup):
    """A group whose verb may be left out: `palimpsest update MODEL …` is `update create MODEL …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="update",
    help="Teach a model; `palimpsest update MODEL` without a verb creates.",
    cls=CreateByDefault,
    no_args_is_help=True,
)


class OnConflict(StrEnum):
    """What happens to rows of a class that the model knows."""

    REJECT = "reject"
    EXTEND = "extend"


@app.callback()
def group() -> None:
    """Teach a model; `palimpsest update MODEL` without a verb creates."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def create(
    ctx: typer.Context,
    model: Model,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Name or id of a dataset with the new rows; repeatable. None: another head."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Name of the method; `palimpsest methods` lists them.")
    ] = "fetril",
    base: Annotated[int | None, typer.Option(help="Version to build on; default the newest.")] = None,
    alias: Annotated[
        str | None, typer.Option(help="Alias to move to the new version if gates allow.")
    ] = None,
    evaluation: Annotated[str | None, typer.Option(help="Name or id of a dataset to evaluate on.")] = None,
    on_conflict: Annotated[
        OnConflict | None, typer.Option(help="What to do with rows of known classes.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random in the method.")] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    idempotency_key: Key = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Teach a model the rows of datasets. Other flags are parameters of the method.

    `palimpsest methods fetril` shows them: --solver softmax, --C 0.1, ...
    """
    with connect(data_dir, url) as api:
        params = parameters(catalogue(api), method, ctx.args)
        job = api.update(
            model_id(api, model),
            [dataset_id(api, one) for one in dataset or []],
            method,
            params,
            key=idempotency_key,
            base=base,
            alias=alias,
            evaluation=dataset_id(api, evaluation) if evaluation else None,
            on_conflict=on_conflict,
            seed=seed,
        )
        end(api, job, output, wait=wait, timeout=timeout, alias=alias)


def methods(
    name: Annotated[str | None, typer.Argument(help="Show the flags of this method.")] = None,
    output: Output = Format.TABLE,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """List the methods, or the parameters of one with their flags and defaults."""
    with connect(data_dir, url) as api:
        found = catalogue(api)
    if name is None:
        show_list(found.values(), ("name", "kind", "summary"), output)
        return
    properties = schema_of(found, name).get("properties", {})
    if output is Format.JSON:
        dump(found[name])
        return
    rows = [
        {
            "flag": flag(key),
            "type": kind_of(field),
            "default": field.get("default"),
            "what": field.get("description", ""),
        }
        for key, field in properties.items()
    ]
    show_list(rows, ("flag", "type", "default", "what"), output)


def catalogue(api: Client) -> dict[str, Json]:
    """The registry as the service publishes it, by name: no method is loaded into this process."""
    return {item["name"]: item for item in api.items("methods")}


def schema_of(found: dict[str, Json], name: str) -> Json:
    """The JSON schema of a method's parameters."""
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.0)
        raise typer.BadParameter(f"there is no method {name}; the nearest is {near[0] if near else 'none'}")
    return dict(found[name]["params"])


def flag(name: str) -> str:
    """How a parameter is written on the command line."""
    return "--" + name.replace("_", "-")


def kind_of(field: Json) -> str:
    """The type of a parameter in a few words."""
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "anyOf" in field:
        return " | ".join(kind_of(option) for option in field["anyOf"])
    return str(field.get("type", "value"))


def parameters(found: dict[str, Json], method: str, args: Sequence[str]) -> dict[str, Any]:
    """Flags behind the known ones as parameters of the method: `--solver svm`, `--turns`, `--no-turns`.

    Only names are checked here; bounds and types are the service's to check.
    """
    properties = schema_of(found, method).get("properties", {})
    by_flag = {flag(name): name for name in properties}
    by_flag |= {f"--no-{flag(n)[2:]}": n for n, field in properties.items() if field.get("type") == "boolean"}
    given: dict[str, Any] = {}
    waiting = list(args)
    while waiting:
        head, equals, value = waiting.pop(0).partition("=")
        if head not in by_flag:
            near = difflib.get_close_matches(head, by_flag, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise typer.BadParameter(f"{method} has no parameter {head}{hint}")
        name = by_flag[head]
        if properties[name].get("type") == "boolean" and not equals:
            given[name] = head == flag(name)
            continue
        if not equals:
            if not waiting:
                raise typer.BadParameter(f"{head} needs a value")
            value = waiting.pop(0)
        given[name] = value if properties[name].get("type") == "string" else value_of(value)
    return given
