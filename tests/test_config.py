"""Settings that cannot be honoured stop the start with a sentence."""

import pytest

from app import config
from app.config import ConfigError


def test_refuses_a_heartbeat_that_is_no_shorter_than_the_lease():
    with pytest.raises(ConfigError, match="heartbeat_seconds must be less than lease_seconds"):
        config.load(environ={"PALIMPSEST__JOBS__LEASE_SECONDS": "15"})


def test_refuses_a_value_where_a_section_belongs(tmp_path):
    file = tmp_path / "palimpsest.toml"
    file.write_text("api = 3\n")
    for more in ({}, {"PALIMPSEST__API__PORT": "1"}):
        with pytest.raises(ConfigError, match="api"):
            config.load(environ={"PALIMPSEST_CONFIG": str(file), **more})


def test_refuses_a_secret_that_cannot_be_read(tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, binary):
        with pytest.raises(ConfigError, match="PALIMPSEST__DATABASE__URL_FILE"):
            config.load(environ={"PALIMPSEST__DATABASE__URL_FILE": str(path)})


def test_refuses_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        config.load(environ={"PALIMPSEST_CONFIG": str(tmp_path)})
