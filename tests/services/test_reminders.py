"""What is said of a request whose day comes near."""

from datetime import timedelta

import pytest

from app.db import clock
from app.schemas.forget import Extension
from app.services.callers import audit
from app.services.forget import decisions, reads, reminders
from app.services.paging import Page
from app.services.scheduler import Scheduler
from app.tables import Delivery, ForgetRequest
from tests.services.asking import ask, key, now

CALLBACK = {"url": "https://93.184.215.14/hook", "secret": "whsec_" + "A" * 43 + "="}


@pytest.fixture
def clerk(tenant):
    """Who may ask and not approve, so that requests stay open."""
    return key(tenant.id, "forget:create")


@pytest.fixture
def request_(service, clerk):
    return ask(service, clerk, ["ada"], regulation="gdpr", callback=CALLBACK)


def due_in(service, request, **left):
    with service.db.begin() as session:
        session.get_one(ForgetRequest, request.id).due_at = clock(session) + timedelta(**left)


def told(service, tenant):
    events = audit.browse(service, tenant.id, Page(100, None), action="forget.due_soon", created_after=None)
    with service.db.read() as session:
        sent = session.query(Delivery).filter_by(event="forget.due_soon").count()
    assert len(events.rows) == sent, "callback and audit chain say the same"
    return sent


def test_it_is_said_seven_and_two_days_before_and_each_once(service, tenant, request_):
    assert reminders.remind(service) == 0
    for left, in_all in ((7.5, 0), (6.9, 1), (6.8, 1), (2.5, 1), (1.9, 2), (0.5, 2)):
        due_in(service, request_, days=left)
        Scheduler(service).sweep()
        reminders.remind(service)
        assert told(service, tenant) == in_all


def test_one_that_was_always_near_is_announced_once_for_all(service, tenant, request_):
    due_in(service, request_, days=1)

    assert [reminders.remind(service) for _ in range(2)] == [1, 0]
    assert told(service, tenant) == 1


def test_more_time_begins_the_reminders_anew(service, tenant, request_):
    due_in(service, request_, days=6)
    reminders.remind(service)
    chief = key(tenant.id, "forget:approve")
    decisions.extend(service, chief, request_.id, Extension(reason="many of them"), None)
    assert reminders.remind(service) == 0
    due_in(service, request_, days=6)

    assert reminders.remind(service) == 1


def test_what_is_late_is_overdue_and_what_is_done_is_neither(service, tenant, clerk, request_):
    due_in(service, request_, hours=-1)
    assert reminders.remind(service) == 0
    late = now(service, clerk, request_)
    assert (late.overdue, late.days_left) == (True, -1)
    found = reads.browse(service, clerk, Page(10, None), reads.Filters())
    assert [reads.summary(seen).overdue for seen in found.rows] == [True]

    decisions.cancel(service, clerk, request_.id, None, None)
    due_in(service, request_, days=1)
    assert reminders.remind(service) == 0
    assert now(service, clerk, request_).overdue is False
