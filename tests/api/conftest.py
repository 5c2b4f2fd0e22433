"""The app over a fresh service with its first tenant, and clients of it.

Embedded, unless a test asks for both stacks: `@both_stacks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from app.main import create_app
from app.service import Caller, Service, open_service
from app.services.callers import access
from app.tables import ApiKey, Tenant
from tests.conftest import STACKS

both_stacks = pytest.mark.parametrize("stack", STACKS, indirect=True)


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> str:
    chosen: str = getattr(request, "param", "embedded")
    return chosen


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    opened = open_service(settings)
    access.bootstrap(opened)
    yield opened
    opened.close()


@pytest.fixture
def tenant(service: Service) -> Tenant:
    return access.tenants(service)[0]


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


def caller_of(key: ApiKey) -> Caller:
    return Caller(key.tenant_id, key.id, frozenset(key.scopes))
