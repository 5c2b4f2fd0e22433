"""The API guide: its commands run as they stand, against a started service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "api.md").read_text()
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=["curl", "stand-in"])
def path(request, tmp_path):
    """A PATH with the machine's curl where it has one, or with the stand-in alone."""
    tools = tmp_path / "tools"
    tools.mkdir()
    stand_in = tools / "curl"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "curl.py"}" "$@"\n')
    stand_in.chmod(0o755)
    system = os.environ["PATH"]
    return f"{tools}:{system}" if request.param == "stand-in" else f"{system}:{tools}"


@pytest.mark.slow
def test_guide_runs_from_top_to_bottom(path, data_dir, tmp_path):
    script = "set -euo pipefail\n" + "\n".join(BLOCK.findall(GUIDE))
    here = tmp_path / "shell"
    here.mkdir()

    done = subprocess.run(
        ["bash", "-c", unique(script, tmp_path.name)],
        cwd=here,
        env={"PATH": path, "DATA": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"label":"plum"' in done.stdout.replace(" ", "")
    assert "event: done" in done.stdout


def unique(script: str, name: str) -> str:
    """The same commands with names and rows of their own, for a service that another run has used."""
    script = script.replace('"name": "fruit"', f'"name": "fruit {name}"')
    script = re.sub(r"Idempotency-Key: (\S+)'", rf"Idempotency-Key: {name}-\1'", script)
    return script.replace("9.1,1.2,0.8", f"9.1,1.2,0.{80 + len(name)}{sum(name.encode())}").replace(
        "1.2,0.9,9.0", f"1.2,0.9,9.0{sum(name.encode())}"
    )


def test_guide_names_every_status_that_routes_answer_with():
    named = set(re.findall(r"\b[45]\d\d\b", GUIDE))

    assert {
        "400",
        "401",
        "403",
        "404",
        "409",
        "410",
        "412",
        "413",
        "415",
        "422",
        "428",
        "429",
        "503",
    } <= named


def test_guide_needs_nothing_but_a_shell_curl_and_python():
    words = re.findall(
        r"(?:^|\$\(|\|)\s*([a-z][\w.-]*)\b(?!=)", "\n".join(BLOCK.findall(GUIDE)), re.MULTILINE
    )
    commands = {word for word in words if shutil.which(word)}

    assert commands <= {"curl", "python3", "cat", "sed", "test", "date", "print", "import"}
