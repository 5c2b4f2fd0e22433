"""What a forget costs the database: statements, whatever the number of requests and of earlier forgets."""

import json
from contextlib import contextmanager

import pytest
from sqlalchemy import event, select, text

from app.services.jobs import Signal
from app.tables import Version, VersionDataset
from tests.services.asking import a_dataset_of, ask
from tests.services.erasing import a_request
from tests.services.learning import a_model, claim, learn, rows, run_next
from tests.workers.test_forget_races import until_quiet
from workers import forget_entries, runner

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


def test_what_was_forgotten_before_the_versions_is_not_read_again(service, tenant, caller, taught):
    """The history is written straight into the tables: rows of a request that the version has left out."""
    data, version = taught
    earlier = a_request(service, tenant.id, {data: range(1000, 1400)}, state="completed")
    with service.db.begin() as session:
        session.get_one(Version, version.id).ledger_sequence = earlier.sequence
        for edge in session.scalars(select(VersionDataset).filter_by(version_id=version.id)):
            edge.left_out = list(range(1000, 1400))
    ask(service, caller, ["p0"])
    claimed = claim(service)
    entries = forget_entries.take(service, claimed)
    assert {id: set(rows) for id, rows in entries.all_rows.items()} == {data.id: {0, PERSONS}}

    made = replaced(service, claimed, version)
    assert set(made.left_out) == {0, PERSONS, *range(1000, 1400)}
    assert stored(service, made) == [0, PERSONS, [1000, 1399]]


def replaced(service, claimed, version):
    """The edge of what replaces a version once the job has run."""
    runner.run(service, claimed, lambda: Signal.CONTINUE)
    with service.db.read() as session:
        new = session.scalars(select(Version).filter_by(replaces_id=version.id)).one()
        return session.scalars(select(VersionDataset).filter_by(version_id=new.id, role="train")).one()


def stored(service, edge):
    """What stands in the database for the rows that an edge leaves out."""
    query = text("SELECT left_out FROM version_datasets WHERE version_id = :id AND role = 'train'")
    with service.db.read() as session:
        return json.loads(session.scalar(query, {"id": edge.version_id.hex}))
