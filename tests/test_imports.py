"""The arrows: who may import whom, and what the Celery process must never load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# module prefix -> prefixes of ours that it may not import
FORBIDDEN = {
    "app.methods": ("app", "workers"),  # but itself
    "app.tables": ("app.api", "app.services", "app.schemas", "app.methods", "app.cli", "workers"),
    "app.schemas": ("app.api", "app.services", "app.cli", "workers"),
    "app.services": ("app.api", "app.cli", "app.main", "workers"),
    "app.intake": ("app.api", "app.services", "app.cli", "app.main", "workers"),
    "app.proof": ("app.api", "app.services", "app.tables", "app.db", "app.cli", "workers"),
    "app": ("workers", "tests", "benchmarks", "examples"),
    "workers": ("app.api", "app.cli", "app.main", "tests"),
    "migrations": ("app.api", "app.services", "app.schemas", "app.methods", "app.cli", "workers"),
}
NOT_HERE = {
    "app.methods": ("fastapi", "starlette", "sqlalchemy", "celery", "kombu", "typer", "alembic"),
    "app.services": ("fastapi", "starlette", "celery", "kombu", "typer"),
    "app.schemas": ("fastapi", "starlette", "celery", "kombu", "typer"),
    "app.tables": ("fastapi", "starlette", "celery", "kombu", "typer", "torch"),
    "app.proof": ("fastapi", "starlette", "sqlalchemy", "celery", "kombu", "typer"),
}


def modules(folder: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names, imports inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, prefix: str) -> bool:
    return module == prefix.rstrip(".") or module.startswith(prefix.rstrip(".") + ".")


def violations(rules: dict[str, tuple[str, ...]]) -> list[str]:
    found = []
    for folder in ("app", "workers", "migrations"):
        for name, path in modules(folder):
            for layer, forbidden in rules.items():
                if not within(name, layer):
                    continue
                for module in imported(path):
                    if any(within(module, prefix) for prefix in forbidden) and not within(module, layer):
                        found.append(f"{name} imports {module}")
    return sorted(set(found))


def test_arrows_between_our_packages_point_one_way():
    assert violations(FORBIDDEN) == []


def test_an_arrow_the_wrong_way_is_found():
    assert "app.api.jobs imports app.services.feed" in violations({"app.api": ("app.services",)})


def test_each_layer_knows_only_its_own_libraries():
    assert violations(NOT_HERE) == []


def test_only_the_edge_of_a_process_reads_the_environment():
    readers = {
        name
        for folder in ("app", "workers", "migrations")
        for name, path in modules(folder)
        if "os.environ" in path.read_text() or "app.config.load" in set(imported(path))
    }
    edges = ("app.config", "app.cli", "workers", "migrations.env", "app.services.supervise")
    assert [name for name in sorted(readers) if not any(within(name, edge) for edge in edges)] == []


@pytest.mark.parametrize("module", ["workers.app", "workers.tasks", "app.services.jobs", "app.cli"])
def test_does_not_load_what_is_heavy(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())

    assert module in loaded
    heavy = ("torch", "sklearn", "scipy", "app.schemas", "app.methods")
    assert [name for name in heavy if name in loaded] == []
