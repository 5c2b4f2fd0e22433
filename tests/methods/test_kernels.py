"""The same bytes with every kernel of BLAS, number of threads, order of rows and size of blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.methods.kernels import CASES

ROOT = Path(__file__).parents[2]
# What decides which kernels run, and the number of threads.
VARIANTS: tuple[tuple[dict[str, str], int], ...] = (
    ({}, 1),
    ({"OPENBLAS_CORETYPE": "Nehalem"}, 2),
    ({"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "default"}, 1),
)


def found_by(kernels: dict[str, str], threads: int, seed: int) -> dict[str, Any]:
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.methods.kernels", str(threads), str(seed)],
        cwd=ROOT,
        env={**os.environ, **kernels, **count},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return [found_by(kernels, threads, seed) for seed, (kernels, threads) in enumerate(VARIANTS)]


@pytest.mark.slow
def test_heads_and_statistics_are_the_same_whatever_computes_them(found):
    assert set(CASES) < set(found[0])
    for name in found[0]:
        if name != "float64":
            assert [each[name] for each in found] == [found[0][name]] * len(VARIANTS), name


@pytest.mark.slow
def test_a_plain_solve_in_float64_is_not(found):
    assert len({each["float64"] for each in found}) > 1
