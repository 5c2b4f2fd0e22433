"""Peak memory of one piece of work, in a process that does nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def in_child(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """The result, and the peak of resident memory in MB above what the process held before it began."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, torch.get_num_threads(), args, kwargs).result()


def _measured(
    work: Callable[..., T], threads: int, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[T, float]:
    torch.set_num_threads(threads)
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    result = work(*args, **kwargs)
    return result, (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
