"""What the kernel says of memory: how often it has ended a process of this control group."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def kills(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Processes that the kernel ended for want of memory; 0 where it does not say."""
    for file in _files(root, membership):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        return sum(int(value) for name, value in map(str.split, lines) if name == "oom_kill")
    return 0


def _files(root: Path, membership: Path) -> list[Path]:
    """Where to look: this process's group (version 2 or 1), then the root, as a container sees its own."""
    found: list[Path] = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found.append(root / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
    return [*found, root / "memory.events", root / "memory" / "memory.oom_control"]
