"""The command line against a started service, from data to prediction."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.options import Exit
from app.cli.root import app, main


@pytest.fixture
def palimpsest(data_dir, monkeypatch, capsys):
    """Run the command line on the service of these tests; answers the exit code, output and messages."""
    monkeypatch.setenv("PALIMPSEST__DATA_DIR", str(data_dir))

    def run(*words):
        monkeypatch.setattr("sys.argv", ["palimpsest", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def ok(palimpsest):
    """The JSON that a command prints, which must succeed."""

    def run(*words):
        code, out, err = palimpsest(*words, "--output", "json")
        assert code == Exit.DONE, err
        return json.loads(out)

    return run


def rows(folder, name, **labels):
    """A file of vectors around one axis per label: six for training, two for evaluation."""
    generator = np.random.default_rng(sum(name.encode()))
    x, label, split = [], [], []
    for text, axis in labels.items():
        for number in range(8):
            x.append(np.eye(4)[axis] * 5 + generator.normal(0, 0.1, 4))
            label.append(text)
            split.append("eval" if number < 2 else "train")
    file = folder / f"{name}.npz"
    np.savez(file, x=np.array(x, np.float32), label=np.array(label), split=np.array(split))
    return file


@pytest.mark.slow
def test_teaches_and_asks_a_model(ok, palimpsest, tmp_path):
    model = ok("model", "create", "birds", "--shape", "4", "--gate", "min_new=0.9")
    assert model["gates"]["min_new"] == 0.9
    assert "birds" in [found["name"] for found in ok("model", "list")]

    first = ok("dataset", "create", rows(tmp_path, "first", gull=0, tern=1))
    assert (first["name"], first["rows"], first["eval_rows"]) == ("first", 16, 4)
    assert ok("dataset", "get", first["id"], "--report")["accepted"] == 16
    done = ok("update", "birds", "--dataset", first["id"], "--method", "ncm", "--metric", "euclidean",
              "--alias", "production", "--wait")  # fmt: skip
    assert (done["state"], done["result"]["version"]) == ("succeeded", 1)

    second = ok("dataset", "create", rows(tmp_path, "second", wren=2))
    code, out, err = palimpsest("update", "birds", "--dataset", second["id"], "--solver", "svm", "--C", "2.0",
                                "--alias", "production", "--wait", "--timeout", "120")  # fmt: skip
    assert code == Exit.DONE, err
    assert "succeeded" in out
    assert "100 %" in err

    versions = ok("version", "list", "birds")
    assert sorted((version["number"], version["method"]["name"]) for version in versions) == [
        (1, "ncm"),
        (2, "fetril"),
    ]
    version = ok("version", "get", "birds", 2)
    assert version["method"]["params"]["C"] == 2.0
    assert version["metrics"]["accuracy"] == 1.0
    assert [node["number"] for node in ok("version", "get", "birds", 2, "--lineage")["ancestors"]] == [1]

    asked = tmp_path / "asked.npy"
    np.save(asked, np.eye(4, dtype=np.float32)[:3])
    answer = ok("predict", "birds", asked, "--alias", "production", "--top-k", 2)
    assert [row["label"] for row in answer["predictions"]] == ["gull", "tern", "wren"]
    asked.with_suffix(".json").write_text("[[0, 0, 9, 0]]")
    code, out, _ = palimpsest("predict", "birds", asked.with_suffix(".json"), "--version", 2)
    assert out.split()[:2] == ["row", "label"]
    assert "wren" in out

    assert ok("alias", "set", "birds", "production", 1, "--reason", "no wrens in winter")["version"] == 1
    assert ok("alias", "rollback", "birds", "production")["version"] == 2
    moves = ok("alias", "history", "birds", "production")
    assert [move["version"] for move in moves] == [2, 1, 2, 1]
    assert ok("alias", "set", "birds", "winter", 1)["version"] == 1
    assert {alias["name"] for alias in ok("alias", "list", "birds")} == {"latest", "production", "winter"}

    assert {job["state"] for job in ok("job", "list", "--model", "birds")} == {"succeeded"}
    code, _, err = palimpsest("job", "cancel", done["id"])
    assert code == Exit.CONFLICT
    assert err.startswith("palimpsest: job-not-cancellable")

    assert ok("dataset", "delete", second["id"], "--yes", "--wait")["kind"] == "purge"
    assert ok("model", "delete", "birds", "--yes", "--wait")["state"] == "succeeded"
    assert palimpsest("model", "get", "birds")[0] == Exit.NOT_FOUND


@pytest.mark.slow
def test_model_learns_by_itself_what_is_sent_for_it(ok, palimpsest, tmp_path):
    ok("model", "create", "fishes", "--shape", "4")
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"when": "on_dataset", "min_rows": 6, "method": {"name": "ncm"}}))
    assert ok("model", "set", "fishes", "--policy", policy)["update_policy"]["min_rows"] == 6

    sent = ok("dataset", "create", rows(tmp_path, "pond", carp=0, pike=1), "--model", "fishes")
    (line,) = [line for line in ok("model", "history", "fishes") if line["event"] == "started"]
    assert line["datasets"] == [sent["id"]]
    assert palimpsest("job", "watch", line["job"])[0] == Exit.DONE
    assert [line["event"] for line in ok("model", "history", "fishes")] == ["started", "published"]
    assert [version["number"] for version in ok("version", "list", "fishes")] == [1]

    policy.write_text("null")
    assert ok("model", "set", "fishes", "--policy", policy)["update_policy"] is None
    policy.write_text("{")
    assert palimpsest("model", "set", "fishes", "--policy", policy)[0] == Exit.USAGE


def test_gate_that_does_not_hold_has_a_code_of_its_own(ok, palimpsest, tmp_path):
    ok("model", "create", "mixed", "--shape", "4", "--gate", "min_new=0.99")
    file = tmp_path / "mixed.csv"
    good = "\n".join(f"{n},0,0,0,a,train\n0,{n},0,0,b,train" for n in (1, 2, 3))
    file.write_text(f"p,q,r,s,label,split\n{good}\n0,1,0,0,a,eval\n0,1,0,0,b,eval\n")
    dataset = ok("dataset", "create", file)["id"]

    code, out, err = palimpsest(
        "update",
        "mixed",
        "--dataset",
        dataset,
        "--method",
        "ncm",
        "--alias",
        "production",
        "--wait",
        "-o",
        "json",
    )

    assert code == Exit.REFUSED_BY_GATE, err
    assert json.loads(out)["result"]["alias"] is None
    assert "production stays where it is" in err


def test_says_what_is_wrong_and_where(palimpsest):
    code, _, err = palimpsest("model", "create", "a", "--shape", "0")

    assert code == Exit.USAGE
    assert "/input/shape/0" in err
    assert "palimpsest: validation-failed" in err


@pytest.mark.parametrize(
    "words", [("model", "get", "nobody"), ("job", "get", "job_00000000000000000000000000")]
)
def test_unknown_things_have_a_code_of_their_own(palimpsest, words):
    code, _, err = palimpsest(*words)

    assert code == Exit.NOT_FOUND
    assert err.count("\n") == 1


def test_key_makes_a_repeated_command_harmless(ok, tmp_path):
    words = ("model", "create", "once", "--shape", "4", "--idempotency-key", "create-once")

    assert ok(*words)["id"] == ok(*words)["id"]


def test_waiting_ends_after_its_time(ok, palimpsest, tmp_path):
    ok("model", "create", "slow", "--shape", "4")
    dataset = ok("dataset", "create", rows(tmp_path, "slow", x=0, y=1))["id"]

    code, _, err = palimpsest(
        "update", "slow", "--dataset", dataset, "--method", "ncm", "--wait", "--timeout", "0", "-o", "json"
    )

    assert code == Exit.TIMEOUT
    assert "after 0 seconds" in err


def test_shows_methods_with_their_flags(ok, palimpsest):
    assert {"supervised", "fetril", "ncm"} <= {method["name"] for method in ok("methods")}
    code, out, _ = palimpsest("methods", "fetril")

    assert code == Exit.DONE
    assert "--solver" in out
    assert "svm | softmax | closed_form" in out


def test_audit_chain_holds(ok):
    assert ok("audit", "verify")["intact"] is True


def test_tenant_gets_a_key_that_sees_nothing_of_others(ok, monkeypatch, palimpsest):
    made = ok("tenant", "create", "second house")
    monkeypatch.setenv("PALIMPSEST_KEY", made["api_key"])
    deadline = time.monotonic() + 30
    while palimpsest("model", "list")[0] != Exit.DONE:  # the service looks for new keys twice a second
        assert time.monotonic() < deadline

    assert ok("model", "list") == []
    monkeypatch.delenv("PALIMPSEST_KEY")
    code, _, err = palimpsest("tenant", "create", "second house")
    assert code == Exit.CONFLICT
    assert "a tenant of that name exists" in err


def test_runs_in_process_as_in_a_shell(data_dir):
    done = CliRunner().invoke(app, ["model", "list", "--data-dir", str(data_dir), "-o", "jsonl"])

    assert done.exit_code == 0
    assert all("id" in json.loads(line) for line in done.stdout.splitlines())
