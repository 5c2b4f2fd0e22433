"""The schema: from empty to the newest, back and forth with rows in it, on both databases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, inspect, select, text

from app.db import change_counter, clock, connect
from app.ids import new
from app.methods.parts.model_settings import FixedRidge
from app.service import Caller, Service, open_service
from app.services import jobs, schema
from app.services.callers import access, audit
from app.services.models import models
from app.services.policies import history
from app.tables import AuditEvent, Base, Change, Decision, Model
from tests.factories import a_job
from tests.services.learning import a_model

ROOT = Path(__file__).parent.parent


@pytest.fixture
def database(stack, tmp_path, request):
    """An empty database without a schema."""
    if stack == "embedded":
        db = connect(f"sqlite:///{tmp_path / 'empty.db'}")
        yield db
        db.close()
        return
    with request.getfixturevalue("servers").database() as url:
        db = connect(url)
        schema.downgrade(db, "base")
        yield db
        db.close()


def test_from_empty_to_the_newest_is_what_the_tables_say(database):
    schema.upgrade(database)

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        difference = compare_metadata(context, Base.metadata)
    assert difference == []
    assert schema.current(database) == schema.head()


def test_every_constraint_and_index_of_the_tables_is_there(database):
    schema.upgrade(database)
    found = inspect(database.engine)

    for table in Base.metadata.sorted_tables:
        assert {fk["name"] for fk in found.get_foreign_keys(table.name)} == {
            c.name for c in table.foreign_key_constraints
        }
        assert {i.name for i in table.indexes} <= {index["name"] for index in found.get_indexes(table.name)}


def test_a_fresh_schema_counts_changes_from_zero(database):
    schema.upgrade(database)

    with database.read() as session:
        assert change_counter(session) == 0


def populate(service: Service) -> None:
    """Rows of the kinds that name one another."""
    access.bootstrap(service)
    tenant = access.tenants(service)[0]
    for kind in ("update", "purge"):
        a_job(service, tenant, kind=kind)
    claimed = jobs.claim(service, ["cpu"], "worker")
    assert claimed is not None
    with service.db.begin() as session:
        jobs.finish(session, claimed, {"version": 1})


def test_goes_down_and_up_again_with_rows_in_it(settings):
    service = open_service(settings)
    populate(service)
    with service.db.read() as session:
        assert session.scalar(select(func.count()).select_from(AuditEvent)) == 2

    schema.downgrade(service.db, "base")

    left = set(inspect(service.db.engine).get_table_names())
    assert left == {"alembic_version"}

    schema.upgrade(service.db)
    populate(service)

    assert audit.verify(service).broken_at is None
    service.close()


def test_models_stay_where_their_policies_come_and_go(settings):
    service = open_service(settings)
    populate(service)
    tenant = access.tenants(service)[0]
    with service.db.begin() as session:
        now = clock(session)
        values = {"tenant_id": tenant.id, "created_at": now, "min_centroid_rows": 5, "gates": {}}
        model = Model(
            **values,
            name="self-taught",
            task="classification",
            input={},
            grid="normalised",
            network={},
            update_policy={"when": "manual"},
            policy_set_at=now,
        )
        session.add(model)
        session.flush()
        history.note(session, model, "waited", "", actor="test")

    schema.downgrade(service.db, "0001")
    assert "decisions" not in inspect(service.db.engine).get_table_names()
    schema.upgrade(service.db)

    with service.db.read() as session:
        found = session.get_one(Model, model.id)
        assert (found.name, found.update_policy, found.policy_set_at) == ("self-taught", None, None)
        assert session.scalars(select(Decision)).all() == []
    service.close()


def test_models_of_the_first_schema_get_the_settings_of_heads(settings):
    service = open_service(settings)
    access.bootstrap(service)
    tenant_id = access.tenants(service)[0].id
    caller = Caller(tenant_id=tenant_id, key_id=new(), scopes=frozenset({"admin"}), request_id="req_test")
    made = a_model(service, caller, keep_versions=9, ridge="gcv")

    schema.downgrade(service.db, "0001")
    schema.upgrade(service.db)

    found = models.read(service, tenant_id, made.id)
    assert (found.expansion, found.ridge, found.keep_versions) == (None, FixedRidge(k=-4), 5)
    assert found.model_copy(update={"ridge": "gcv", "keep_versions": 9}) == made
    service.close()


def test_upgrading_again_changes_nothing(settings):
    service = open_service(settings)
    populate(service)

    schema.upgrade(service.db)
    schema.prepare(service.db)

    assert [tenant.name for tenant in access.tenants(service)] == ["default"]
    service.close()


def test_references_are_kept_after_a_migration(settings):
    service = open_service(settings)
    schema.upgrade(service.db)

    with service.db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        else:
            assert connection.execute(text("SHOW session_replication_role")).scalar() == "origin"
    service.close()


def test_of_processes_that_start_together_one_migrates(database):
    code = (
        "import sys; from app.db import connect; from app.services import schema; "
        "db = connect(sys.argv[1]); schema.prepare(db); db.close()"
    )
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", code, url]
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1] for process in running]

    assert [process.returncode for process in running] == [0, 0, 0], errors
    assert schema.current(database) == schema.head()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Change)) == 1
