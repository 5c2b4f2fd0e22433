"""Dying with one's parent, so that no process is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int, with_signal: signal.Signals) -> None:
    """Have the kernel send a signal when the thread that started this process ends (Linux).

    A parent that went before this call is noticed by its id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:
        raise SystemExit("the parent process is gone")
