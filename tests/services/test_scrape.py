"""What Prometheus reads of jobs."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app.db import clock
from app.services import jobs, readiness, scrape
from app.services.jobs import Cause
from app.tables import Job
from tests.factories import a_job


def values(service):
    text = scrape.text(service).decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_it_counts_jobs_by_state_and_cause(service, tenant):
    for _ in range(2):
        a_job(service, tenant)
    claimed = jobs.claim(service, ["cpu"], "me")
    assert claimed is not None
    jobs.fail(service, claimed, Cause.TIMEOUT)

    found = values(service)
    assert found["palimpsest_jobs_in_state", "nap", "queued"] == 1
    assert found["palimpsest_jobs_total", "failed", "nap", "timeout"] == 1


def test_it_counts_lost_leases_and_claims_that_came_too_late(service, tenant):
    a_job(service, tenant)
    claimed = jobs.claim(service, ["cpu"], "me")
    assert claimed is not None
    with service.db.begin() as session:
        session.execute(update(Job).values(lease_expires_at=clock(session) - timedelta(seconds=1)))
    jobs.sweep(service)
    jobs.note_fenced(service, claimed)

    found = values(service)
    assert (found["palimpsest_job_lease_expired_total",], found["palimpsest_job_fenced_total",]) == (1, 1)


def test_it_measures_how_long_jobs_waited_and_ran(service, tenant):
    job = a_job(service, tenant)
    with service.db.begin() as session:
        now = clock(session)
        times = {
            "queued_at": now - timedelta(seconds=9),
            "started_at": now - timedelta(seconds=7),
            "finished_at": now - timedelta(seconds=4),
        }
        session.execute(update(Job).where(Job.id == job.id).values(state="succeeded", **times))

    found = values(service)
    for what, seconds, below, above in (("queue", 2, "1.0", "2.5"), ("run", 3, "2.5", "5.0")):
        name = f"palimpsest_job_{what}_seconds"
        assert found[f"{name}_sum", "nap"] == pytest.approx(seconds, abs=0.01)
        assert (found[f"{name}_bucket", below, "nap"], found[f"{name}_bucket", above, "nap"]) == (0, 1)


def test_it_reads_the_database_once_for_many_who_ask_at_once(service, tenant, monkeypatch):
    reads = []
    real = service.db.read

    def read():
        reads.append(1)
        return real()

    monkeypatch.setattr(service.db, "read", read)
    monkeypatch.setattr("app.services.brief.SECONDS", 3_600.0)

    assert len({scrape.text(service).decode().count("palimpsest_jobs_in_state") for _ in range(5)}) == 1
    assert len(reads) == 1


def test_without_the_database_it_tells_what_it_counted_itself(service, monkeypatch):
    def away():
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(service.db, "read", away)
    text = scrape.text(service).decode()

    assert "process_cpu_seconds_total" in text
    assert "palimpsest_jobs_in_state" not in text


def test_readiness_is_looked_at_once_for_many_who_ask_at_once(service, monkeypatch):
    looks = []
    real = service.bell.answers

    def answers():
        looks.append(1)
        return real()

    monkeypatch.setattr(service.bell, "answers", answers)
    monkeypatch.setattr("app.services.brief.SECONDS", 3_600.0)

    assert {readiness.look(service).database for _ in range(5)} == {"ok"}
    assert len(looks) == 1
