"""`palimpsest forget` against a started service: shown, asked, done, proved."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from app.cli.options import Exit
from app.cli.root import main

PERSONS = ["ada", "ben", "cleo", "dan", "eve", "finn"]


@pytest.fixture
def palimpsest(data_dir, monkeypatch, capsys):
    """Run the command line on the service of these tests; answers the exit code, output and messages."""
    monkeypatch.setenv("PALIMPSEST__DATA_DIR", str(data_dir))

    def run(*words, typed=""):
        monkeypatch.setattr("sys.argv", ["palimpsest", *map(str, words)])
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def ok(palimpsest):
    """The JSON that a command prints, which must succeed."""

    def run(*words, typed=""):
        code, out, err = palimpsest(*words, "--output", "json", typed=typed)
        assert code == Exit.DONE, err
        return json.loads(out)

    return run


@pytest.fixture
def keepers(ok, palimpsest, tmp_path, request):
    """A model that learned two rows of each of six persons."""
    name = f"keepers-{request.node.name[:20]}"
    ok("model", "create", name, "--shape", "4")
    random = np.random.default_rng(5)
    file = tmp_path / "rows.npz"
    label = ["gull", "tern"] * 6
    x = [np.eye(4)[int(kind == "tern")] * 5 + random.normal(0, 0.1, 4) for kind in label]
    subject = [f"{name}-{person}" for person in PERSONS for _ in range(2)]
    np.savez(file, x=np.array(x, np.float32), label=np.array(label), subject=np.array(subject))
    data = ok("dataset", "create", file)
    done = ok(
        "update", name, "--dataset", data["id"], "--method", "analytic", "--alias", "production", "--wait"
    )
    assert done["state"] == "succeeded"
    return name


@pytest.mark.slow
def test_shows_asks_forgets_and_says_what_may_be_claimed(ok, palimpsest, keepers, tmp_path):
    ada = f"{keepers}-ada"
    code, out, err = palimpsest("forget", "--subject", ada, "--preview")
    assert code == Exit.DONE, err
    assert out.startswith("Forget 1 person everywhere:")
    assert f"model {keepers}: 1 version, exact" in out
    assert "version 1 (production): subtract" in out
    assert "2 rows" in out
    assert ok("forget", "--subject", ada, "--preview")["samples"] == 2
    assert ok("forget", "list", "--model", keepers) == []

    code, _, err = palimpsest("forget", "--subject", ada, typed="yes\n")
    assert (code, "Nothing was done." in err) == (Exit.FAILED, True)
    assert ok("forget", "list", "--model", keepers) == []

    page = tmp_path / "ada.html"
    code, out, err = palimpsest(
        "forget", "--subject", ada, "--regulation", "gdpr", "--external-id", f"ticket of {keepers}",
        "--certificate", page, "--timeout", "120", typed="forget 1 person\n",
    )  # fmt: skip
    assert code == Exit.DONE, err
    assert "Forget 1 person everywhere, as gdpr asks:" in out
    assert "purging" in err
    assert "1 -> 2 by subtract, exact" in out
    assert "Forgotten. Level E: Every version that replaces one" in err
    assert page.read_text().startswith("<!doctype html>") or "<html" in page.read_text()[:200].lower()
    signed = page.with_suffix(".json")
    assert json.loads(signed.read_bytes())["claim"]["level"] == "E"
    assert ada not in out + err + page.read_text() + signed.read_text()

    (request,) = ok("forget", "list", "--external-id", f"ticket of {keepers}")
    assert (request["state"], request["overdue"]) == ("completed", False)
    assert ok("forget", "get", request["id"])["evidence"]["rows"] == 2
    code, out, _ = palimpsest("forget", "certificate", request["id"])
    assert (code, out.encode()) == (Exit.DONE, signed.read_bytes())
    assert ok("forget", "deliveries", request["id"]) == []
    code, _, err = palimpsest("forget", "cancel", request["id"])
    assert (code, "completed" in err) == (Exit.CONFLICT, True)
    assert palimpsest("forget", "get", "fgt_" + "0" * 26)[0] == Exit.NOT_FOUND
    assert ok("version", "get", keepers, 2)["replaces"] is not None


@pytest.mark.slow
def test_takes_names_from_standard_input_and_a_class_by_its_name(ok, palimpsest, keepers):
    names = f"{keepers}-ben\n{keepers}-cleo\tsome number\n\n"
    code, _, err = palimpsest("forget", "--subject-file", "-", typed=names)
    assert (code, "--yes" in err) == (Exit.USAGE, True)
    done = ok("forget", "--subject-file", "-", "--model", keepers, "--yes", "--wait", typed=names)
    assert (done["state"], done["persons"], done["evidence"]["rows"]) == ("completed", 2, 4)
    assert done["claim"]["level"] == "E"

    nobody = ok("forget", "--subject", f"{keepers}-BEN", "--yes", "--wait")
    assert (nobody["state"], nobody["claim"]["level"]) == ("completed", None)

    shown = ok("forget", "--class", "tern", "--model", keepers, "--preview")
    assert [len(model["classes"]) for model in shown["models"]] == [1]
    assert palimpsest("forget", "--class", "tern", "--preview")[0] == Exit.USAGE
    assert palimpsest("forget", "--class", "owl", "--model", keepers, "--preview")[0] == Exit.NOT_FOUND
    code, _, err = palimpsest("forget", "watch", done["id"])
    assert code == Exit.DONE, err
    assert "Level E" in err
    late = palimpsest("forget", "--subject", "x", "--due", "2020-01-31", "--yes")
    assert (late[0], "deadline-passed" in late[2]) == (Exit.USAGE, True)


@pytest.mark.slow
def test_a_certificate_is_checked_and_its_version_made_again(ok, palimpsest, keepers, tmp_path):
    signed, published = tmp_path / "certificate.json", tmp_path / "keys.json"
    code, _, err = palimpsest(
        "forget", "--subject", f"{keepers}-ben", "--yes", "--certificate", signed, "--timeout", "120"
    )
    assert code == Exit.DONE, err
    published.write_text(json.dumps(ok("certificate", "key", "list")))
    assert ok("certificate", "verify", signed, "--key", published)["level"] == "E"

    folder = tmp_path / "remaining"
    (file,) = ok("dataset", "export", "--model", keepers, "--version", 2, "--out", folder)
    assert file["bytes"] > 0
    (verdict,) = ok("certificate", "reproduce", signed, "--data", folder)
    assert (verdict["version"], verdict["outcome"]) == (2, "equal")

    code, line, err = palimpsest("certificate", "reproduce", signed, "--service")
    assert code == Exit.DONE, err
    signed.write_text(line)
    assert ok("certificate", "verify", signed, "--key", published)["outcome"] == "equal"
    code, _, err = palimpsest("dataset", "export", "--model", keepers, "--version", 1, "--out", folder)
    assert (code, "purged" in err) == (Exit.NOT_FOUND, True)
