"""The README's five minutes run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ACCURACY = re.compile(r"^(\d) +\S+ +\w+ +(0\.\d+) +\d+ +ready", re.MULTILINE)
LABEL = re.compile(r"^\d +(\d) +\S+ +cls_", re.MULTILINE)


@pytest.mark.slow
def test_five_minutes_print_what_the_readme_shows(data_dir, tmp_path):
    here = Path(sys.executable).parent
    script = "set -euo pipefail\n" + "\n".join(BLOCK.findall(README))

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{here}:{os.environ['PATH']}", "PALIMPSEST__DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shown, printed = dict(ACCURACY.findall(README)), dict(ACCURACY.findall(done.stdout))
    assert set(shown) == set(printed) == {"1", "2"}
    for version, accuracy in shown.items():
        assert abs(float(printed[version]) - float(accuracy)) < 0.01
    assert LABEL.findall(done.stdout) == LABEL.findall(README) == ["7", "8", "9", "7"]


def test_names_the_two_commands():
    assert re.findall(r"^make (\w+)", README, re.MULTILINE)[:2] == ["demo", "test"]
