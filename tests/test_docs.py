"""What the documentation says exists: commands, settings, files, and pages written from the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from app import config
from app.api.problems import codes
from app.cli.root import app
from app.cli.updates import CreateByDefault
from app.services.certificates.claims import SENTENCES
from docs.generate import methods_page

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
TEXT = "\n".join(page.read_text() for page in PAGES)
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[str]:
    """Every `palimpsest …` in the pages, as code or in a block, without what stands for a value."""
    found = re.findall(r"`(palimpsest [^`\n]+)`", TEXT)
    found += re.findall(r"^(?:\$ )?(?:\.venv/bin/)?(palimpsest [^\n#]+)", TEXT, re.MULTILINE)
    return sorted({command.partition("  ")[0].rstrip(" .,") for command in found})


def test_methods_page_is_written_from_the_registry():
    committed = (ROOT / "docs" / "methods.md").read_text()

    assert committed == methods_page(), "the methods changed: run `make docs` and commit docs/methods.md"


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command):
    node: Any = typer.main.get_command(app)
    words = [word for word in command.split()[1:] if word != "--help"]
    while words and words[0] in getattr(node, "commands", {}):
        node = node.commands[words.pop(0)]
    if words and isinstance(node, CreateByDefault):
        node = node.commands["create"]
    takes_any = bool(node.context_settings.get("ignore_unknown_options"))  # parameters of methods are flags
    known = {option for parameter in node.params for option in parameter.opts + parameter.secondary_opts}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}

    assert not (hasattr(node, "commands") and words), f"no command {words[0]}"
    assert takes_any or given <= known


def test_settings_exist():
    environment = set(re.findall(rf"\b{config.PREFIX}[A-Z_]*[A-Z]\b", TEXT)) - {"PALIMPSEST__SECTION__KEY"}
    dotted = set(re.findall(r"`((?:api|database|broker|files|jobs|limits)\.[a-z_]+)`", TEXT))

    assert environment
    assert dotted
    assert environment <= set(config.names())
    assert dotted <= {".".join(path) for path in config.names().values()}


def test_make_targets_exist():
    named = set(re.findall(r"`make ([a-z ]+?)(?: [A-Z]+=\S+)?`", TEXT)) | set(
        re.findall(r"^make ([a-z]+)", TEXT, re.MULTILINE)
    )

    assert {"demo", "test", "check"} <= named
    assert {target for names in named for target in names.split()} <= TARGETS


@each_page
def test_links_and_named_files_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    files = re.findall(r"`((?:docs|app|examples|tests|benchmarks|workers|migrations)/[\w./-]+\.\w+)`", text)

    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [file for file in files if not (ROOT / file).exists()] == []


@each_page
def test_pages_keep_to_a_width_that_can_be_read(page):
    plain = [line for line in page.read_text().splitlines() if not line.startswith("|")]

    assert page.name == "methods.md" or max(map(len, plain)) <= 140


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda page: page.stem
)
def test_decisions_say_why_and_what_else(page):
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)

    assert headings == ["Context", "Decision", "Consequences", "Alternatives"]
    assert len(page.read_text().splitlines()) <= 60


def test_error_codes_in_the_guide_exist():
    named = set(re.findall(r"\b[45]\d\d\s+`([a-z-]+)`", TEXT))

    assert named
    assert named <= set(codes())


def test_the_guide_says_of_each_level_what_its_certificates_say():
    guide = (ROOT / "docs" / "forgetting.md").read_text()

    assert [level for level, sentence in SENTENCES.items() if f"`{level}` |" not in guide] == []
    assert [level for level, sentence in SENTENCES.items() if sentence not in guide] == []
