"""Locks are taken in one order by everybody: read from the statements that PostgreSQL gets."""

import re
from contextlib import contextmanager

import numpy as np
import pytest
from sqlalchemy import event

from app.services.erasure import entries, forgotten
from app.services.forget import acts
from tests.services.asking import a_dataset_of, ask
from tests.services.erasing import a_request
from tests.services.learning import a_dataset, a_model, learn, rows


@pytest.fixture
def stack():
    return "production"


@contextmanager
def held(service):
    """The tables of which rows are locked meanwhile, transaction by transaction."""
    found: list[list[str]] = [[]]

    def hear(_connection, _cursor, statement, *_):
        if re.search(r"FOR (NO KEY )?(UPDATE|KEY SHARE|SHARE)", statement):
            found[-1].append(re.findall(r"FROM (\w+)", statement)[0])

    def end(_connection):
        found.append([])

    event.listen(service.db.engine, "before_cursor_execute", hear)
    event.listen(service.db.engine, "commit", end)
    try:
        yield found
    finally:
        event.remove(service.db.engine, "before_cursor_execute", hear)
        event.remove(service.db.engine, "commit", end)


def test_a_decision_holds_jobs_before_models_before_its_request(service, tenant, caller):
    data = a_dataset_of(service, tenant.id, rows(ant=2, bee=2), [["ada"], ["ben"], ["cy"], ["dan"]])
    learn(service, caller, a_model(service, caller), [data], "analytic")
    request = ask(service, caller, ["ada"])
    with held(service) as found, service.db.begin() as session:
        entries.lock(session)
        acts.own(session, tenant.id, request.id)
    assert found[0] == ["jobs", "models", "forget_requests"]


def test_a_purge_holds_the_requests_of_all_datasets_at_once(service, tenant):
    data = [a_dataset(service, tenant.id, ["ant"] * 4) for _ in range(3)]
    for one in data:
        a_request(service, tenant.id, {one: np.arange(2).tolist()})
    with held(service) as found:
        forgotten.purge(service, tenant.id, lambda _: None)
    counts = [line.count("forget_requests") for line in found if "datasets" in line]
    assert counts == [1]
