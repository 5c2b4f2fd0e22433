"""A real service: its own process, port, workers and data directory."""

from __future__ import annotations

import pytest

from app.client import Client
from examples import service


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The directory of a service that runs for the tests of this folder."""
    with service.running(tmp_path_factory.mktemp("service")) as folder:
        yield folder


@pytest.fixture
def api(data_dir):
    """A client of it, as its administrator."""
    with Client.local(data_dir) as client:
        yield client
