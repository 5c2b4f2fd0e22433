"""`palimpsest certificate`: checking without the service, making again with and without it."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app import ids
from app.cli.options import Exit
from app.cli.root import app
from app.proof.verify import check, read_keys
from app.services.certificates import keys
from app.services.datasets import export
from app.tables import AuditEvent
from tests.services.certificates.forgetting import a_request, forgotten, issued


@pytest.fixture
def stack():
    return "embedded"


@pytest.fixture
def palimpsest(service, monkeypatch):
    """Run the command line on this service; answers the exit code and what it printed."""
    monkeypatch.setenv("PALIMPSEST__DATA_DIR", str(service.settings.data_dir))

    def run(*words, output="json"):
        told = ["--output", output] if output else []
        done = CliRunner().invoke(app, ["certificate", *map(str, words), *told])
        return done.exit_code, json.loads(done.stdout) if output and done.stdout else done.output

    return run


@pytest.fixture
def done(service, tenant, caller):
    return forgotten(service, tenant, caller)


@pytest.fixture
def file(service, done, tmp_path):
    path = tmp_path / "certificate.json"
    path.write_bytes(issued(service, done.request))
    return path


@pytest.fixture
def published(service, file, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"items": keys.published(service)}))
    return path


def test_a_certificate_is_checked_without_service_database_or_learning_code(file, published):
    script = (
        "import sys\nfrom app.cli.root import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print([name for name in ('torch', 'sqlalchemy', 'fastapi', 'numpy') if name in sys.modules])"
    )
    words = ["certificate", "verify", str(file), "--key", str(published)]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=Path(__file__).parents[1],
        env={"PATH": "/usr/bin:/bin", "PALIMPSEST__DATA_DIR": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.endswith("[]\n"), done.stderr
    assert "exact_by_construction" in done.stdout


def test_an_altered_certificate_and_the_key_of_another_are_refused_with_the_reason(
    service, tenant, palimpsest, file, published
):
    assert palimpsest("verify", file, "--key", published)[1]["valid"] is True

    bare = json.loads(published.read_text())["items"][0]["public_key"]
    assert palimpsest("verify", file, "--key", bare)[0] == Exit.DONE
    code, said = palimpsest("verify", file, "--key", base64.b64encode(bytes(32)).decode())
    assert (code, said["valid"]) == (Exit.FAILED, False)
    assert palimpsest("verify", file, "--key", "x", output=None)[0] == Exit.USAGE

    altered = file.with_name("altered.json")
    altered.write_bytes(file.read_bytes().replace(b'"level":"E"', b'"level":"S"'))
    code, said = palimpsest("verify", altered, "--key", published)
    assert (code, said["valid"]) == (Exit.FAILED, False)
    assert "altered" in said["reason"]


def test_it_makes_a_version_again_from_exported_rows(service, caller, palimpsest, done, file, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    assert palimpsest("reproduce", file, "--data", folder)[0] == Exit.NOT_FOUND

    taken = export.export(service, caller, done.dataset.id, done.new.model_id, done.new.number, None)
    path = folder / taken.name
    path.write_bytes(b"".join(taken.parts))
    (folder / "notes.npz").write_text("something else")
    code, found = palimpsest("reproduce", file, "--data", folder)
    assert (code, found[0]["outcome"]) == (Exit.DONE, "equal")
    assert found[0]["model"] == ids.encode("mdl", done.new.model_id)

    with np.load(path) as arrays:
        changed = {**arrays, "label": arrays["label"][::-1]}
    np.savez(path, **changed)
    assert palimpsest("reproduce", file, "--data", folder)[0] == Exit.FAILED


def test_a_forged_certificate_is_refused_with_a_key_and_marked_as_unchecked_without(
    palimpsest, file, published, tmp_path
):
    folder = tmp_path / "rows"
    folder.mkdir()
    forged = file.with_name("forged.json")
    forged.write_bytes(file.read_bytes().replace(b'"level":"E"', b'"level":"S"'))

    code, said = palimpsest("reproduce", forged, "--data", folder, "--key", published, output=None)
    assert code == Exit.FAILED
    assert "altered" in said

    code, said = palimpsest("reproduce", forged, "--data", folder, output=None)
    assert code == Exit.NOT_FOUND  # it compares, and there are no rows
    assert "was not checked" in said

    code, said = palimpsest("reproduce", file, "--data", folder, "--key", published, output=None)
    assert code == Exit.NOT_FOUND
    assert "was not checked" not in said
    assert palimpsest("reproduce", file, "--service", "--key", published, output=None)[0] == Exit.USAGE


def test_the_service_makes_it_again_from_its_own_rows_and_signs_what_came_of_it(
    service, palimpsest, file, published
):
    with service.db.read() as session:
        before = session.scalars(select(AuditEvent.sequence)).all()

    code, line = palimpsest("reproduce", file, "--service", output=None)

    assert code == Exit.DONE, line
    content = check(line.strip().encode(), read_keys(published.read_bytes()))
    assert (content["outcome"], content["format"]) == ("equal", "palimpsest-rebuild/1")
    assert content["certificate"] == json.loads(file.read_bytes())["id"]
    with service.db.read() as session:
        assert session.scalars(select(AuditEvent.sequence)).all() == before

    altered = file.with_name("altered.json")
    altered.write_bytes(file.read_bytes().replace(b'"level":"E"', b'"level":"S"'))
    assert palimpsest("reproduce", altered, "--service", output=None)[0] == Exit.FAILED
    assert palimpsest("reproduce", file, output=None)[0] == Exit.USAGE


def test_keys_are_made_retired_and_revoked(service, tenant, palimpsest, file):
    (first,) = palimpsest("key", "list")[1]
    code, second = palimpsest("key", "create")
    assert (code, second["retired_at"]) == (Exit.DONE, None)
    assert palimpsest("key", "create", "--tenant", "nobody", output=None)[0] == Exit.NOT_FOUND

    assert palimpsest("key", "retire", second["id"])[1]["retired_at"]
    assert palimpsest("key", "revoke", first["id"], "--yes")[1]["revoked_at"]
    assert (
        palimpsest("key", "revoke", ids.encode("sgk", ids.new()), "--yes", output=None)[0] == Exit.NOT_FOUND
    )
    assert palimpsest("key", "retire", "sgk_x", output=None)[0] == Exit.USAGE

    listed = palimpsest("key", "list")[1]
    assert [bool(key["revoked_at"]) for key in listed] == [True, False]
    assert [bool(key["retired_at"]) for key in listed] == [True, True]
    signer = json.loads(issued(service, a_request(service, tenant)))["signed_by"]["key"]
    assert signer not in (first["id"], second["id"])  # one is made where none may sign
