"""The app over a fresh embedded service, and clients of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from app.db import connect
from app.main import create_app
from app.service import Service, open_service
from app.services import access, schema


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, copied for each test."""
    path = tmp_path_factory.mktemp("schema") / "palimpsest.db"
    db = connect(f"sqlite:///{path}")
    schema.upgrade(db)
    db.close()
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def service(settings: Settings, empty_database: Path) -> Iterator[Service]:
    settings.data_dir.mkdir()
    shutil.copy(empty_database, settings.data_dir / "palimpsest.db")
    opened = open_service(settings)
    access.bootstrap(opened)
    yield opened
    opened.close()


@pytest.fixture
def admin_token(service: Service) -> str:
    return (service.settings.data_dir / access.ADMIN_KEY_FILE).read_text().strip()


@pytest.fixture
def client(service: Service, admin_token: str) -> Iterator[TestClient]:
    """A client that the first admin key speaks through."""
    with TestClient(create_app(service), headers=bearer(admin_token)) as opened:
        yield opened


@pytest.fixture
def key_with(client: TestClient) -> Callable[..., dict[str, str]]:
    """Headers of a fresh API key of the same tenant, with these scopes."""

    def make(*scopes: str) -> dict[str, str]:
        answer = client.post("/v1/api-keys", json={"name": "a key", "scopes": list(scopes)})
        assert answer.status_code == 201, answer.text
        return bearer(answer.json()["token"])

    return make


@pytest.fixture
def stranger(service: Service) -> dict[str, str]:
    """Headers of the admin of another tenant."""
    return bearer(access.create_tenant(service, "another")[1])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
