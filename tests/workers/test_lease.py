"""The thread that keeps a lease, where the database is away or takes the job back."""

import threading

import pytest
from sqlalchemy.exc import OperationalError

from app.config import Jobs
from app.services import jobs
from app.services.jobs import Signal
from app.services.jobs import asked as job_wishes
from tests.factories import a_job
from tests.workers.watching import read, until
from workers.lease import Lease


@pytest.fixture
def stack():
    return "embedded"


@pytest.fixture
def jobs_settings():
    return Jobs(lease_seconds=0.6, heartbeat_seconds=0.1, sweep_seconds=0.2)


@pytest.fixture
def claimed(service, tenant):
    a_job(service, tenant)
    return jobs.claim(service, ["cpu"], "me")


def test_a_lease_is_renewed_while_the_job_runs(service, claimed):
    first = read(service, claimed).lease_expires_at
    with Lease(service, claimed) as kept:
        until(lambda: read(service, claimed).lease_expires_at > first)
        assert kept.signal is Signal.CONTINUE


def test_a_worker_that_cannot_renew_stops_before_its_lease_ends(service, claimed, monkeypatch):
    def away(*_):
        raise OperationalError("UPDATE jobs", {}, Exception("the database is away"))

    monkeypatch.setattr("app.services.jobs.renew", away)
    monkeypatch.setattr("app.services.jobs.look", away)
    with Lease(service, claimed) as kept:
        until(lambda: kept.signal is Signal.LOST)


def test_a_call_that_hangs_loses_the_lease_too(service, claimed, monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr("app.services.jobs.renew", lambda *_: let_go.wait())
    monkeypatch.setattr("app.services.jobs.look", lambda *_: let_go.wait())
    with Lease(service, claimed) as kept:
        until(lambda: kept.signal is Signal.LOST)
        let_go.set()


def test_no_error_of_one_look_ends_the_watch(service, claimed, monkeypatch):
    real, failures = jobs.renew, iter([True, True])

    def flaky(*arguments):
        if next(failures, False):
            raise RuntimeError("a driver's own")
        return real(*arguments)

    monkeypatch.setattr("app.services.jobs.renew", flaky)
    first = read(service, claimed).lease_expires_at
    with Lease(service, claimed):
        until(lambda: read(service, claimed).lease_expires_at > first)


def test_a_short_absence_of_the_database_changes_nothing(service, claimed, monkeypatch):
    real, failures = jobs.renew, iter([True, True])

    def flaky(*arguments):
        if next(failures, False):
            raise OperationalError("UPDATE jobs", {}, Exception("the database is away"))
        return real(*arguments)

    monkeypatch.setattr("app.services.jobs.renew", flaky)
    first = read(service, claimed).lease_expires_at
    with Lease(service, claimed) as kept:
        until(lambda: read(service, claimed).lease_expires_at > first)
        assert kept.signal is Signal.CONTINUE


def test_a_cancellation_is_passed_on(service, caller, claimed):
    with Lease(service, claimed) as kept:
        job_wishes.cancel(service, caller, claimed.id)
        until(lambda: kept.signal is Signal.CANCEL)
