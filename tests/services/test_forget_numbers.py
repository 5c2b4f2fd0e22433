"""What Prometheus reads of forget requests."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from app import ids
from app.db import clock
from app.services import scrape
from app.services.forget import decisions, states
from app.tables import Delivery, ForgetRequest, ModelClass
from tests.services.asking import a_dataset_of, ask, key
from tests.services.learning import a_model, learn, rows

CALLBACK = {"url": "https://93.184.215.14/hook", "secret": "whsec_" + "A" * 43 + "="}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every look reads the database."""
    monkeypatch.setattr("app.services.brief.SECONDS", 0.0)


def value(service, name, **labels):
    for family in text_string_to_metric_families(scrape.text(service).decode()):
        for sample in family.samples:
            if sample.name == f"palimpsest_{name}" and sample.labels == labels:
                return sample.value
    raise LookupError(name)


def change(service, request, **fields):
    with service.db.begin() as session:
        row = session.get_one(ForgetRequest, request.id)
        for name, shift in fields.items():
            setattr(row, name, clock(session) + shift)


def test_it_counts_open_and_late_requests_and_how_old_they_are(service, tenant):
    assert [value(service, f"forget_{name}") for name in ("open", "overdue", "oldest_age_seconds")] == [
        0,
        0,
        0,
    ]
    clerk = key(tenant.id, "forget:create")
    old, _, gone = (ask(service, clerk, [name]) for name in ("ada", "ben", "cleo"))
    decisions.cancel(service, clerk, gone.id, None, None)
    change(service, old, created_at=-timedelta(days=2), due_at=-timedelta(seconds=1))
    change(service, gone, due_at=-timedelta(seconds=1))

    assert (value(service, "forget_open"), value(service, "forget_overdue")) == (2, 1)
    assert value(service, "forget_oldest_age_seconds") == pytest.approx(2 * 86_400, abs=60)


def test_it_measures_how_long_completion_took(service, tenant):
    clerk = key(tenant.id, "forget:create")
    done, withdrawn = (ask(service, clerk, [name]) for name in ("ada", "ben"))
    decisions.cancel(service, clerk, withdrawn.id, None, None)
    with service.db.begin() as session:
        states.complete(session, session.get_one(ForgetRequest, done.id))
    change(service, done, created_at=-timedelta(seconds=100), finished_at=timedelta(0))

    assert value(service, "forget_completion_seconds_bucket", le="60.0") == 0
    assert value(service, "forget_completion_seconds_bucket", le="300.0") == 1
    assert value(service, "forget_completion_seconds_sum") == pytest.approx(100, abs=1)
    assert value(service, "forget_completion_seconds_count") == 1


def test_it_counts_versions_that_know_what_was_erased(service, caller, tenant):
    used, other = (
        a_dataset_of(service, tenant.id, rows(ant=2, bee=2), [["ada"], ["ben"], ["cleo"], ["dan"]])
        for _ in range(2)
    )
    first, second = a_model(service, caller), a_model(service, caller)
    learn(service, caller, first, [used])
    learn(service, caller, second, [other])
    assert value(service, "versions_tainted") == 0

    ask(service, caller, [{"dataset": ids.encode("dst", used.id), "positions": [0]}], "samples")
    assert value(service, "versions_tainted") == 1
    with service.db.read() as session:
        named = session.scalar(select(ModelClass.id).where(ModelClass.model_id == second.id))
    ask(service, caller, [ids.encode("cls", named)], "class")
    assert value(service, "versions_tainted") == 2


def test_it_counts_messages_by_what_became_of_them_and_how_late_they_are(service, tenant):
    assert value(service, "webhook_deliveries_total", outcome="delivered") == 0
    assert value(service, "webhook_lag_seconds") == 0
    clerk = key(tenant.id, "forget:create")
    for name in ("ada", "ben", "cleo"):
        ask(service, clerk, [name], callback=CALLBACK)
    with service.db.begin() as session:
        waiting, failed, delivered = session.scalars(select(Delivery))
        waiting.created_at = clock(session) - timedelta(hours=1)
        failed.state, delivered.state = "failed", "delivered"

    assert value(service, "webhook_deliveries_total", outcome="delivered") == 1
    assert value(service, "webhook_deliveries_total", outcome="failed") == 1
    assert value(service, "webhook_lag_seconds") == pytest.approx(3_600, abs=60)
