"""The command line without a service: what it loads, what it says, how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app import client, config, wire
from app.cli import (
    admin,
    follow,
    forget_decisions,
    forget_options,
    forget_show,
    models,
    root,
    running,
    show,
    updates,
)
from app.cli.options import Exit, Format
from app.cli.root import app, exit_code
from app.client import Client, Problem
from app.intake.media import MEDIA
from app.methods.incremental.fetril import FetrilParams
from app.services import schema
from app.services.callers.access import ADMIN_KEY_FILE

HEAVY = ("torch", "sklearn", "fastapi", "sqlalchemy", "scipy", "celery", "numpy")
CATALOGUE: dict[str, Any] = {
    "fetril": {
        "name": "fetril",
        "params": {
            "properties": {
                "solver": {"type": "string", "enum": ["svm", "softmax"], "default": "svm"},
                "cost": {"type": "number", "default": 1.0},
                "max_steps": {"type": "integer", "default": 100},
                "shuffle": {"type": "boolean", "default": True},
                "ridge": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
            }
        },
    }
}


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of the tree, by its words."""
    yield path, node
    for name, child in getattr(node, "commands", {}).items():
        yield from commands(child, (*path, name))


TREE = list(commands(typer.main.get_command(app)))
every_command = pytest.mark.parametrize(
    ("path", "node"), TREE, ids=[" ".join(p) or "palimpsest" for p, _ in TREE]
)


def palimpsest(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, in an empty directory."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_loads_nothing_heavy(tmp_path):
    script = "\n".join(
        [
            "import sys",
            "from typer.testing import CliRunner",
            "from app.cli.root import app",
            f"for words in {[list(path) for path, _ in TREE]!r}:",
            "    assert CliRunner().invoke(app, [*words, '--help']).exit_code == 0, words",
            f"print([name for name in {HEAVY!r} if name in sys.modules])",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_has_the_commands_that_are_promised():
    found = {" ".join(path) for path, _ in TREE}

    assert {
        "serve",
        "worker",
        "scheduler",
        "predict",
        "methods",
        "config show",
        "tenant create",
        "audit verify",
    } <= found
    for group, verbs in {
        "db": "upgrade downgrade current",
        "model": "create list get set history delete",
        "dataset": "create list get delete",
        "version": "list get",
        "alias": "list set rollback history",
        "job": "list get watch cancel retry",
        "update": "create",
        "forget": "create list get approve reject cancel extend hold release retry certificate deliveries",
    }.items():
        assert {f"{group} {verb}" for verb in verbs.split()} <= found


@every_command
def test_explains_every_command_and_option(path, node):
    assert node.help
    for parameter in node.params:
        assert parameter.name == "help" or parameter.help, f"{' '.join(path)}: {parameter.name}"


@pytest.mark.parametrize(
    ("name", "value", "nearest"), [("PALIMPSEST__API__PROT", "1", "PALIMPSEST__API__PORT")]
)
def test_refuses_a_setting_that_does_not_exist_in_one_line(tmp_path, name, value, nearest):
    done = palimpsest("config", "show", cwd=tmp_path, **{name: value})

    assert done.returncode == Exit.USAGE
    assert done.stderr == f"palimpsest: {name} is no setting; the nearest is {nearest}\n"


def test_refuses_a_value_that_does_not_parse_without_a_traceback(tmp_path):
    done = palimpsest("config", "show", cwd=tmp_path, PALIMPSEST__API__PORT="many")

    assert done.returncode == Exit.USAGE
    assert "api.port" in done.stderr
    assert "Traceback" not in done.stderr


def test_shows_settings_with_their_source_and_without_secrets(tmp_path):
    (tmp_path / "palimpsest.toml").write_text("[limits]\nsamples = 7\n")
    done = palimpsest(
        "config",
        "show",
        "--output",
        "json",
        "--data-dir",
        str(tmp_path),
        cwd=tmp_path,
        PALIMPSEST__DATABASE__URL="postgresql+psycopg://me:secret@host/db",
    )
    rows = {row["setting"]: row for row in json.loads(done.stdout)}

    assert set(rows) == {".".join(path) for path in config.names().values()}
    assert rows["data_dir"]["source"] == "flag"
    assert rows["limits.samples"] == {
        "setting": "limits.samples",
        "value": 7,
        "source": "file",
        "environment": "PALIMPSEST__LIMITS__SAMPLES",
    }
    assert rows["database.url"]["source"] == "environment"
    assert rows["database.url"]["value"] == "postgresql+psycopg://me:***@host/db"
    assert rows["api.port"]["source"] == "default"
    assert "secret" not in done.stdout


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://:word@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("palimpsest-data", "palimpsest-data"),
        (8321, 8321),
    ],
)
def test_hides_passwords_of_urls(value, shown):
    assert admin.redacted(value) == shown


def test_says_that_no_service_runs(tmp_path):
    done = palimpsest("model", "list", "--data-dir", str(tmp_path), cwd=tmp_path)

    assert done.returncode == Exit.FAILED
    assert done.stderr.startswith(f"palimpsest: no service runs in {tmp_path}")
    assert done.stderr.count("\n") == 1


def db(*words: str, data_dir: Path) -> Any:
    """`palimpsest db …` in this process."""
    return CliRunner().invoke(app, ["db", *words, "--data-dir", str(data_dir)])


def test_embedded_database_goes_up_and_down(tmp_path):
    assert db("current", data_dir=tmp_path).exit_code == Exit.FAILED
    assert db("upgrade", data_dir=tmp_path).exit_code == Exit.DONE
    shown = db("current", data_dir=tmp_path)
    assert shown.exit_code == Exit.DONE
    assert shown.stdout.startswith(f"{schema.head()} ")
    assert db("downgrade", "base", data_dir=tmp_path).exit_code == Exit.FAILED  # nobody said yes
    assert db("current", data_dir=tmp_path).exit_code == Exit.DONE
    assert db("downgrade", "base", "--yes", data_dir=tmp_path).exit_code == Exit.DONE
    assert db("current", data_dir=tmp_path).stdout.startswith("empty ")


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_refuses_a_database_without_tables(tmp_path, command):
    done = palimpsest(command, "--data-dir", str(tmp_path), cwd=tmp_path)

    assert done.returncode == Exit.FAILED
    assert "run `palimpsest db upgrade`" in done.stderr
    assert "Traceback" not in done.stderr


def test_refuses_a_queue_that_does_not_exist(tmp_path):
    done = palimpsest("worker", "--queues", "cpu,tpu", cwd=tmp_path)

    assert done.returncode == Exit.USAGE
    assert "tpu is no queue" in done.stderr


def test_refuses_a_directory_that_is_held(tmp_path):
    with (
        running.alone(tmp_path),
        pytest.raises(running.Refused, match="runs already"),
        running.alone(tmp_path),
    ):
        pass

    with running.alone(tmp_path):
        pass


def test_an_api_alone_starts_where_another_service_runs(tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr("app.logs.configure", lambda: None)
    monkeypatch.setattr(running, "run_server", lambda *_: served.append(1))
    chosen = config.load({"data_dir": tmp_path, "api.port": 0}, environ={}).settings
    with running.alone(tmp_path):
        for _ in range(2):
            with ExitStack() as stack:
                running.start(chosen, True, stack)
        with ExitStack() as stack, pytest.raises(running.Refused, match="runs already"):
            running.start(chosen, False, stack)

    assert len(served) == 2


def test_leaves_the_address_that_another_process_published(tmp_path):
    path = tmp_path / "address"
    with running.published(path, "http://one") as publish:
        publish()
        with running.published(path, "http://two") as other:
            other()
        assert not path.exists()
        path.write_text("http://three\n")

    assert path.read_text() == "http://three\n"


def test_refuses_a_port_that_is_taken():
    with running.listen("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(running.Refused, match=f"port {port}"), running.listen("127.0.0.1", port):
            pass


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "http://127.0.0.1:"), ("127.0.0.1", "http://127.0.0.1:")]
)
def test_publishes_an_address_that_this_machine_reaches(host, address):
    with running.listen(host, 0) as listener:
        assert running.reachable(listener).startswith(address)


@pytest.mark.parametrize(
    ("args", "params"),
    [
        ([], {}),
        (["--solver", "softmax"], {"solver": "softmax"}),
        (["--cost=0.5", "--max-steps", "7"], {"cost": 0.5, "max_steps": 7}),
        (["--no-shuffle"], {"shuffle": False}),
        (["--shuffle", "--ridge", "null"], {"shuffle": True, "ridge": None}),
        (["--solver", "1"], {"solver": "1"}),
    ],
)
def test_reads_flags_as_parameters_of_the_method(args, params):
    assert updates.parameters(CATALOGUE, "fetril", args) == params


@pytest.mark.parametrize(
    ("method", "args", "message"),
    [
        ("fetril", ["--solvr", "svm"], "the nearest is --solver"),
        ("fetril", ["--cost"], "--cost needs a value"),
        ("fetrl", [], "the nearest is fetril"),
    ],
)
def test_refuses_flags_that_the_method_does_not_have(method, args, message):
    with pytest.raises(typer.BadParameter, match=message):
        updates.parameters(CATALOGUE, method, args)


@pytest.mark.parametrize(("text", "shape"), [("384", [384]), ("8x8", [8, 8]), ("32X32x3", [32, 32, 3])])
def test_reads_shapes(text, shape):
    assert models.shape_of(text) == shape


@pytest.mark.parametrize(
    ("status", "code", "ends"),
    [
        (404, "not-found", Exit.NOT_FOUND),
        (410, "purged", Exit.NOT_FOUND),
        (409, "class-name-conflict", Exit.CONFLICT),
        (412, "precondition-failed", Exit.CONFLICT),
        (422, "validation-failed", Exit.USAGE),
        (403, "missing-scope", Exit.FAILED),
    ],
)
def test_ends_by_what_went_wrong(status, code, ends):
    assert exit_code(Problem(status, {"code": code, "detail": ""})) is ends


@pytest.mark.parametrize(
    ("job", "ends"),
    [
        ({"id": "j", "state": "succeeded", "result": {"alias": "production"}}, Exit.DONE),
        ({"id": "j", "state": "succeeded", "result": {"alias": None}}, Exit.REFUSED_BY_GATE),
        ({"id": "j", "state": "failed", "error": {"cause": "internal"}}, Exit.FAILED),
        ({"id": "j", "state": "cancelled", "error": None}, Exit.FAILED),
    ],
)
def test_ends_by_what_became_of_a_job(job, ends):
    assert follow.verdict(job, "production") is ends


def test_prints_lists_for_people_and_for_programs(capsys):
    items: list[dict[str, Any]] = [
        {"id": "a", "metrics": {"accuracy": 0.97123}, "tags": ["x", "y"]},
        {"id": "b", "metrics": None},
    ]

    show.show_list(items, ("id", "metrics.accuracy", "tags"), Format.TABLE)
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["id", "metrics.accuracy", "tags"]
    assert first.split() == ["a", "0.9712", "x,", "y"]
    assert second.split() == ["b", "-", "-"]

    show.show_list(items, ("id",), Format.JSON)
    assert json.loads(capsys.readouterr().out) == items

    show.show_list(items, ("id",), Format.JSONL)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == items


def test_prints_one_thing_with_its_parts(capsys):
    item = {
        "id": "a",
        "method": {"name": "ncm", "params": {"metric": "cosine"}},
        "classes": [{"name": "x", "count": 3}, {"name": "y", "count": 4}],
        "tainted": False,
        "gates": {},
        "links": {"events": "/v1/…"},
    }

    show.show_one(item, Format.TABLE)

    assert capsys.readouterr().out.splitlines() == [
        "id             a",
        "method.name    ncm",
        "method.params  metric cosine",
        "classes        name x  count 3",
        "               name y  count 4",
        "tainted        no",
        "gates          -",
    ]


def test_agrees_with_the_service_on_formats_and_file_names():
    assert set(wire.FORMATS.values()) <= set(MEDIA)
    assert client.KEY_FILE == ADMIN_KEY_FILE


def test_update_without_a_verb_creates():
    explicit = CliRunner().invoke(app, ["update", "create", "digits", "--base", "newest"])
    implicit = CliRunner().invoke(app, ["update", "digits", "--base", "newest"])

    assert "--base" in implicit.output
    assert implicit.output == explicit.output
    assert implicit.exit_code == explicit.exit_code == Exit.USAGE


@pytest.mark.parametrize("text", [b"xx", b"[[NaN]]", b"\xff\xfe", b"[" * 100_000, b""])
def test_ends_in_one_line_where_standard_input_is_no_json(tmp_path, text):
    words = [sys.executable, "-m", "app.cli", "predict", "--url", "http://127.0.0.1:9", "mdl_1"]
    environ = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin", "PALIMPSEST_KEY": "k"}
    done = subprocess.run(words, input=text, cwd=tmp_path, env=environ, capture_output=True, timeout=60)
    assert done.returncode == Exit.USAGE
    assert b"Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(b"standard input is neither .npy nor JSON")


def test_ends_in_one_line_where_a_file_cannot_be_read(tmp_path):
    (tmp_path / "data" / ADMIN_KEY_FILE).mkdir(parents=True)
    done = palimpsest("model", "list", "--data-dir", "data", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr.splitlines() == [f"palimpsest: data/{ADMIN_KEY_FILE}: Is a directory"]


def test_the_help_of_an_update_names_flags_that_there_are():
    shown = CliRunner().invoke(app, ["update", "create", "--help"]).output
    example = shown.partition("shows them:")[2].partition("...")[0]
    named = {word for word in example.split() if word.startswith("--")}
    assert named
    assert named <= {updates.flag(name) for name in FetrilParams.model_fields}


def test_a_file_of_rows_a_line_goes_by_both_its_names():
    assert (
        wire.media_type(Path("rows.ndjson")) == wire.media_type(Path("rows.jsonl")) == "application/x-ndjson"
    )


def test_persons_and_classes_are_not_forgotten_in_one_request():
    with pytest.raises(typer.BadParameter, match="only one of --subject and --class"):
        forget_options.named(Client("http://nowhere", "key"), ["ada"], None, False, [], ["cls_1"], [])


def test_a_refusal_shows_what_it_refers_to(monkeypatch, capsys):
    document = {"code": "subject-erased", "detail": "erased", "related": ["/v1/forget-requests/fgt_1"]}

    def refused():
        raise Problem(409, document)

    monkeypatch.setattr(root, "app", refused)
    with pytest.raises(SystemExit):
        root.main()
    assert "see /v1/forget-requests/fgt_1" in capsys.readouterr().err


def test_a_hold_is_shown_and_says_that_it_takes_the_place_of_another(monkeypatch):
    held = {"reason": "suit", "until": None, "actor": "key_1"}
    request = {"id": "fgt_1", "state": "locating", "evidence": {}, "items": []}

    class Api:
        def get(self, path):
            return {**request, "hold": held}

        def post(self, path, body, key):
            return {**request, "hold": {**held, **body}}

    @contextmanager
    def connect(data_dir, url):
        yield Api()

    monkeypatch.setattr(forget_decisions, "connect", connect)
    done = CliRunner().invoke(root.app, ["forget", "hold", "fgt_1", "--reason", "audit"])
    assert done.exit_code == Exit.DONE, done.output
    assert "already, for «suit»" in done.stderr
    assert re.search(r"hold.reason +audit", done.stdout)


def test_stages_end_with_a_line_where_nobody_watches(capsys):
    """What a script prints next must not stand behind them."""
    request = {"stages": [], "state": "completed", "done": True, "items": []}

    class Done(Client):
        def wait_forget(self, name, timeout=None, *, seen=None):
            assert seen is not None
            seen(request)
            return request

    assert forget_show.follow(Done("http://nowhere", "key"), "fgt_1", None) is request
    assert capsys.readouterr().err.rstrip(" ").endswith("completed\n")
