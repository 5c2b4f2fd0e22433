"""What a forget costs the database: statements, whatever the number of requests and of earlier forgets."""

from contextlib import contextmanager

import pytest
from sqlalchemy import event

from tests.services.asking import a_dataset_of, ask
from tests.services.learning import a_model, learn, rows, run_next
from tests.workers.test_forget_races import until_quiet

PERSONS = 24


@pytest.fixture
def stack():
    return "embedded"


@pytest.fixture
def taught(service, tenant, caller):
    """A model that has learned two rows of each person, one of either class."""
    persons = [[f"p{i}"] for i in range(PERSONS)] * 2
    data = a_dataset_of(service, tenant.id, rows(ant=PERSONS, bee=PERSONS), persons)
    return data, learn(service, caller, a_model(service, caller), [data], "analytic")


@contextmanager
def statements(service):
    """The statements that go to the database meanwhile."""
    found = []

    def hear(_connection, _cursor, statement, *_):
        found.append(statement)

    event.listen(service.db.engine, "before_cursor_execute", hear)
    try:
        yield found
    finally:
        event.remove(service.db.engine, "before_cursor_execute", hear)


def work(service):
    """Run the forget job, the purge and what follows; gives the number of statements of the first two."""
    counts = []
    for kind in ("forget", "purge"):
        with statements(service) as found:
            job = run_next(service)
        assert (job.kind, job.state) == (kind, "succeeded")
        counts.append(len(found))
    until_quiet(service)
    return counts


def test_a_job_for_many_requests_asks_the_database_as_often_as_one_for_one(service, tenant, caller, taught):
    ask(service, caller, ["p0"])
    one, _ = work(service)
    for i in range(1, 21):
        ask(service, caller, [f"p{i}"])
    many, _ = work(service)
    assert many <= one + 2


def test_the_tenth_forget_asks_the_database_as_often_as_the_second(service, tenant, caller, taught):
    counts = []
    for i in range(10):
        ask(service, caller, [f"p{i}"])
        counts.append(work(service))
    assert counts[9] == counts[1]
