"""The image and the compose file name only commands, options and settings that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app import config
from app.cli.root import app
from app.config import names

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
COMMANDS = {n: s["command"] for n, s in SERVICES.items() if s.get("command", [""])[0] == "palimpsest"}
IMAGE_COMMANDS = [json.loads(text) for text in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]


def parses(command: list[str]) -> bool:
    """Does every word of a command exist? `--help` at its end keeps it from running."""
    return CliRunner().invoke(app, [*command[1:], "--help"]).exit_code == 0


def settings_named(environment: dict[str, str]) -> set[str]:
    return {name for name in environment if name.startswith(config.PREFIX)}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_runs_a_command_that_exists(command):
    assert parses(command)


@pytest.mark.parametrize("command", IMAGE_COMMANDS, ids=" ".join)
def test_image_runs_a_command_that_exists(command):
    assert parses(command)


@pytest.mark.parametrize(
    "command",
    [["palimpsest", "serve", "--api"], ["palimpsest", "work"], ["palimpsest", "db", "update"]],
    ids=" ".join,
)
def test_notices_a_command_that_does_not_exist(command):
    assert not parses(command)


def test_has_every_service_of_a_deployment():
    assert set(COMMANDS) == {"migrate", "api", "scheduler", "worker-cpu", "worker-io", "worker-gpu"}
    assert set(SERVICES) - set(COMMANDS) == {"db", "redis"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize(
    ("service", "queue"), [("worker-cpu", "cpu"), ("worker-io", "io"), ("worker-gpu", "gpu")]
)
def test_gives_every_queue_a_worker(service, queue):
    assert COMMANDS[service] == ["palimpsest", "worker", "--queues", queue]


@pytest.mark.parametrize("service", COMMANDS)
def test_sets_only_settings_that_exist(service):
    given = settings_named(SERVICES[service]["environment"])

    assert given
    assert given <= set(names())


def test_image_sets_only_settings_that_exist():
    given = set(re.findall(rf"\b({config.PREFIX}\w+)=", DOCKERFILE))

    assert given
    assert given <= set(names())


@pytest.mark.parametrize("service", COMMANDS)
def test_settings_name_postgresql_and_redis(service):
    environment = {
        n: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(v)) for n, v in SERVICES[service]["environment"].items()
    }

    settings = config.load(environ=environment).settings

    assert settings.database_url.startswith("postgresql+psycopg://palimpsest:palimpsest@db/")
    assert settings.broker.url.startswith("redis://redis:")


@pytest.mark.parametrize("service", COMMANDS)
def test_waits_for_what_it_needs(service):
    waits = SERVICES[service]["depends_on"]

    assert waits["db"]["condition"] == "service_healthy"
    if service != "migrate":
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        assert waits["redis"]["condition"] == "service_healthy"


@pytest.mark.parametrize("service", SERVICES)
def test_pins_every_image_and_names_every_volume(service):
    image = SERVICES[service]["image"]
    volumes = {volume.split(":")[0] for volume in SERVICES[service]["volumes"]}

    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image)
    assert volumes <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", COMMANDS)
def test_writes_nowhere_but_volumes_and_tmp(service):
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["tmpfs"] == ["/tmp"]
    assert SERVICES[service]["stop_grace_period"] == "60s"


def test_image_does_not_run_as_root():
    _, installed, *targets = DOCKERFILE.split("FROM ")

    assert "\nUSER palimpsest\n" in installed
    assert targets
    assert all(target.startswith("installed AS ") and "USER" not in target for target in targets)


def test_redis_loses_nothing_that_was_rung():
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options == {"--appendonly": "yes", "--appendfsync": "everysec", "--maxmemory-policy": "noeviction"}


def test_builds_targets_that_exist():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    asked = {service["build"]["target"] for service in SERVICES.values() if "build" in service}

    assert asked <= targets
    assert asked == {"api", "worker"}
