"""Certificates of whole forgets: what each says of what was found, never less and never more."""

import json

import pytest
from sqlalchemy import select

from app.tables import Certificate
from tests.services.asking import a_dataset_of, ask, row
from tests.services.learning import a_model, learn, rows, run_next

OTHERS = [["x"], ["y"], ["z"], ["w"]]


@pytest.fixture
def stack():
    return "embedded"


def certificate(service, request):
    with service.db.read() as session:
        return json.loads(session.scalar(select(Certificate.body).filter_by(request_id=request.id)))


def learned(service, tenant, caller, subjects):
    """A dataset whose rows name these persons, and a version that learned it."""
    dataset = a_dataset_of(service, tenant.id, rows(ant=3, bee=3), subjects)
    learn(service, caller, a_model(service, caller), [dataset], "analytic")


def work(service, *kinds):
    """Run the jobs that wait, which have to be of these kinds."""
    assert [run_next(service).kind for _ in kinds] == list(kinds)


def test_that_of_a_duplicate_has_the_versions_of_the_request_that_it_joined(service, tenant, caller):
    learned(service, tenant, caller, [["ada"], ["ben"], *OTHERS])
    first, second = (ask(service, caller, ["ada"]) for _ in range(2))
    assert row(service, second.id).duplicate_of == first.id

    work(service, "forget", "purge")

    one, other = certificate(service, first), certificate(service, second)
    assert other["claim"] == one["claim"]
    assert other["claim"]["level"] == "E"
    assert other["versions"] == one["versions"]
    assert other["found"]["versions"] == 1
    work(service, "verify")
    for request in (first, second):
        assert [line["outcome"] for line in row(service, request.id).evidence["rebuilds"]] == ["equal"]
