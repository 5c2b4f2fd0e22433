"""The two stacks that tests run on: SQLite and the file system, a real PostgreSQL and a real Redis.

A folder that needs only one of them overrides the fixture `stack`.
"""

import pytest

from app.config import Broker, DatabaseSection, Jobs, Settings
from app.db import clock
from app.ids import new
from app.service import Caller, open_service
from app.tables import Tenant
from app.vault import new_key
from tests.stacks import Servers, Template, migrated

STACKS = ("embedded", "production")


@pytest.fixture(scope="session")
def servers():
    """PostgreSQL and Redis, started when the first test asks for them."""
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """An empty database at the newest schema, copied for each test."""
    path = tmp_path_factory.mktemp("template") / "palimpsest.db"
    migrated(f"sqlite:///{path}")
    return Template(path)


@pytest.fixture(params=STACKS)
def stack(request):
    return request.param


@pytest.fixture
def jobs_settings():
    """Leases and sweeps; tests that wait for them override this."""
    return Jobs()


@pytest.fixture
def settings(stack, tmp_path, request, jobs_settings):
    """Settings of a fresh, empty service on one of the stacks."""
    return settings_on(stack, tmp_path / "data", request, jobs_settings)


def settings_on(stack, data_dir, request, jobs_settings):
    """Settings of an empty service; on `production` there is one at a time in a test process."""
    data_dir.mkdir(mode=0o700)
    if stack == "embedded":
        request.getfixturevalue("template").copy_to(data_dir / "palimpsest.db")
        return Settings(data_dir=data_dir, jobs=jobs_settings)
    servers = request.getfixturevalue("servers")
    return Settings(
        data_dir=data_dir,
        jobs=jobs_settings,
        database=DatabaseSection(url=servers.empty_database()),
        broker=Broker(url=servers.broker()),
    )


@pytest.fixture
def service(settings):
    service = open_service(settings)
    yield service
    service.close()


@pytest.fixture
def tenant(service):
    """A tenant with its HMAC key."""
    return a_tenant(service, "default")


@pytest.fixture
def caller(tenant):
    """Whoever may do everything in `tenant`."""
    return Caller(tenant_id=tenant.id, key_id=new(), scopes=frozenset({"admin"}), request_id="req_test")


def a_tenant(service, name):
    tenant_id = new()
    service.vault.write_key(tenant_id, new_key())
    with service.db.begin() as session:
        tenant = Tenant(id=tenant_id, created_at=clock(session), name=name)
        session.add(tenant)
    return tenant
