"""Probes, metrics, the catalogue, the limits."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from starlette.testclient import TestClient

from app import __version__, ids, methods
from app.config import Broker
from app.main import create_app
from app.service import open_service
from app.services import jobs, schema
from app.tables import Job
from tests.api.conftest import both_stacks
from tests.factories import a_job


def test_lives_without_a_key(client):
    for path in ("/livez", "/healthz"):
        answer = client.get(path, headers={"Authorization": ""})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_is_ready_when_everything_is_there(client):
    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "database": "ok",
        "schema_revision": "ok",
        "storage": "ok",
        "broker": "ok",
        "ledger": "ok",
    }


def test_without_a_broker_it_is_degraded_and_takes_work(settings, service):
    away = settings.model_copy(update={"broker": Broker(url="redis://127.0.0.1:1/0")})
    opened = open_service(away)
    with TestClient(create_app(opened)) as client:
        answer = client.get("/readyz")
    opened.close()

    assert (answer.status_code, answer.json()["status"], answer.json()["broker"]) == (
        200,
        "degraded",
        "failed",
    )


def test_with_another_schema_it_is_not_ready(client, service):
    with service.db.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'another'"))

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["schema_revision"]) == (503, "failed")
    assert answer.headers["retry-after"]


def test_without_its_storage_it_is_not_ready(client, service):
    shutil.rmtree(service.settings.keys_dir)

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["storage"]) == (503, "failed")


def test_refuses_a_schema_that_is_not_its_own(service):
    schema.check(service.db)
    for revision, advice in (("zzzz", "ahead"), (None, "empty")):
        with service.db.begin() as session:
            session.execute(text("DELETE FROM alembic_version"))
            if revision:
                session.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})
        with pytest.raises(schema.SchemaMismatch, match=advice):
            schema.check(service.db)


def samples(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_counts_requests_by_route_and_never_by_id(client, service, tenant):
    job = a_job(service, tenant)
    name = ("route", "/jobs/{job}"), ("status", "404")
    key = ("palimpsest_http_requests_total", ("method", "GET"), *name)
    before = samples(client).get(key, 0)

    client.get("/v1/jobs/job_01jd8x4r9kf3v5n2m7q6t0a1bc")

    after = samples(client)
    assert after[key] == before + 1
    assert job.id.hex not in client.get("/metrics").text


def test_counts_jobs_in_the_database_at_the_time_of_asking(client, service, tenant):
    a_job(service, tenant, kind="purge")
    a_job(service, tenant, kind="purge")
    job = a_job(service, tenant, kind="update")
    client.post(f"/v1/jobs/{ids.encode('job', job.id)}/cancel")

    found = samples(client)

    state = "palimpsest_jobs_in_state"
    assert found[state, ("kind", "purge"), ("state", "queued")] == 2
    assert found[state, ("kind", "update"), ("state", "cancelled")] == 1
    total = ("palimpsest_jobs_total", ("cause", "cancelled"), ("kind", "update"), ("state", "cancelled"))
    assert found[total] == 1


@both_stacks
def test_tells_how_long_jobs_waited_and_ran(client, service, tenant):
    job = a_job(service, tenant, kind="update")
    claimed = jobs.claim(service, ["cpu"], "cpu-0")
    assert claimed is not None
    with service.db.begin() as session:
        jobs.finish(session, claimed, {})
    with service.db.begin() as session:
        row = session.get_one(Job, job.id)
        row.started_at = row.queued_at + timedelta(seconds=2)
        row.finished_at = row.started_at + timedelta(seconds=20.5)
        row.fenced, row.expired = 3, 2

    found = samples(client)

    kind = ("kind", "update")
    assert found["palimpsest_job_queue_seconds_sum", kind] == pytest.approx(2, abs=1e-3)
    assert found["palimpsest_job_run_seconds_sum", kind] == pytest.approx(20.5, abs=1e-3)
    assert found["palimpsest_job_run_seconds_bucket", kind, ("le", "15.0")] == 0
    assert found["palimpsest_job_run_seconds_bucket", kind, ("le", "60.0")] == 1
    assert found["palimpsest_job_fenced_total",] == 3
    assert found["palimpsest_job_lease_expired_total",] == 2
    assert found["palimpsest_worker_last_claim_timestamp_seconds",] == row.started_at.timestamp()


def test_says_which_release_answers(client):
    shown = client.get("/v1/version", headers={"Authorization": ""}).json()

    assert (shown["version"], shown["api"]) == (__version__, "/v1")


def test_lists_every_method_with_the_schema_of_its_parameters(client):
    shown = {item["name"]: item for item in client.get("/v1/methods").json()["items"]}

    assert set(shown) == {method.name for method in methods.ALL}
    for method in methods.ALL:
        item = shown[method.name]
        assert (item["kind"], item["summary"], item["source"]) == (
            method.kind,
            method.summary,
            method.source,
        )
        assert set(item["params"]["properties"]) == set(method.params.model_fields)


def test_shows_the_limits_that_hold(client, service):
    assert client.get("/v1/limits").json() == service.settings.limits.model_dump()
