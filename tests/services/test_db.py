"""What the database promises to whoever opens a transaction."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db import NOTICES_SILENCE, change_counter, touch


def test_a_read_is_one_snapshot(service):
    with service.db.read() as reading:
        before = change_counter(reading)
        with service.db.begin() as writing:
            touch(writing)
        assert change_counter(reading) == before
    with service.db.read() as later:
        assert change_counter(later) == before + 1


def test_an_error_does_not_repeat_what_was_to_be_stored(service, tenant):
    secret = "somebody@example.org"
    with service.db.begin() as session:
        statement = text("INSERT INTO tenants (id, created_at, name) VALUES (:id, :at, :name)")
        with pytest.raises(DBAPIError) as raised:
            session.execute(statement, {"id": tenant.id.hex, "at": tenant.created_at, "name": secret})
        session.rollback()

    assert secret not in str(raised.value)


class TestOnSqlite:
    @pytest.fixture
    def stack(self):
        return "embedded"

    def test_a_commit_is_on_the_disk(self, service):
        full = 2
        with service.db.read() as session:
            assert session.scalar(text("PRAGMA synchronous")) == full


class TestOnPostgresql:
    @pytest.fixture
    def stack(self):
        return "production"

    def test_a_read_writes_nothing(self, service):
        with pytest.raises(DBAPIError, match="read-only"), service.db.read() as session:
            session.execute(text("UPDATE changes SET counter = counter + 1"))

    def test_a_silent_server_is_noticed(self, service):
        with service.db.read() as session:
            connection = session.connection().connection.dbapi_connection
            given = connection.info.get_parameters()
        assert {name: int(given[name]) for name in NOTICES_SILENCE} == NOTICES_SILENCE
