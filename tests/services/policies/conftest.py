import pytest

from app.service import Caller
from app.services.callers import access


@pytest.fixture
def caller(service, tenant):
    """An API key that may do everything and that the database knows."""
    with service.db.begin() as session:
        row = access.issue(session, tenant.id, "key", ["admin"], None, actor="test").row
    return Caller(tenant.id, row.id, frozenset(row.scopes), "req_test")
