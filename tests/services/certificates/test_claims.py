"""Certificates of whole forgets: what each says of what was found, never less and never more."""

import json

import pytest
from sqlalchemy import select

from app.services.certificates import verification
from app.tables import Certificate
from tests.services.asking import a_dataset_of, ask, row
from tests.services.learning import a_model, learn, rows, run_next
from workers import forget_checks

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


def test_that_of_a_duplicate_has_the_versions_of_the_request_that_it_joined(
    service, tenant, caller, monkeypatch
):
    monkeypatch.setattr(verification, "WAIT_SECONDS", 0.0)
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


def test_rows_that_stay_since_they_name_others_are_not_said_to_be_nowhere(service, tenant, caller):
    learned(service, tenant, caller, [["ada", "ben"], ["ben"], *OTHERS])
    first, second = (ask(service, caller, ["ada"], shared_rows="report") for _ in range(2))

    work(service, "purge")

    for request in (first, second):
        content = certificate(service, request)
        assert content["claim"] == {
            "level": None,
            "status": "rows_left",
            "sentence": "Every stored row that names what was to be erased names others too and stays, as "
            "the request asks: no row was erased, and what was made from these rows is as it was.",
        }
        assert [(one["code"], one["rows"]) for one in content["exceptions"]] == [("shared-rows", 1)]


def test_that_of_withdrawn_versions_does_not_say_that_there_were_none(service, tenant, caller):
    learned(service, tenant, caller, [["ada"]] * 6)
    request = ask(service, caller, ["ada"])

    work(service, "forget", "purge")

    content = certificate(service, request)
    assert [version["replacing"] for version in content["versions"]] == [None]
    assert content["claim"] == {
        "level": None,
        "status": "withdrawn",
        "sentence": "Every version that was made from the erased rows was withdrawn: none stands in its "
        "place.",
    }


def test_what_is_said_of_few_rows_is_their_number_alone(service, tenant, caller):
    persons = [
        [name] for name, count in (("ada", 1), ("ben", 24), ("cleo", 25), ("x", 30)) for _ in range(count)
    ]
    dataset = a_dataset_of(service, tenant.id, rows(ant=40, bee=40), persons)
    learn(service, caller, a_model(service, caller), [dataset], "analytic")
    said = []

    for name in ("ada", "ben", "cleo"):
        request = ask(service, caller, [name])
        work(service, "forget", "purge")
        (version,) = certificate(service, request)["versions"][-1:]
        said.append(version["checks"])

    few = "too few rows to state it"
    assert said[0]["forgotten"] == {"rows": 1, "accuracy": None, "reason": few}
    assert said[1]["forgotten"] == {"rows": 24, "accuracy": None, "reason": few}
    assert said[2]["forgotten"] == {"rows": 25, "accuracy": 1.0}
    assert said[2]["others"] == {"rows": 6, "accuracy": None, "reason": few}  # of the same shards


@pytest.mark.parametrize("rows", [25, 30, 199, 200, 201, 1000, 10_000])
def test_a_share_of_all_rows_is_stated_as_that_of_all_but_one(rows):
    assert forget_checks.share(rows, rows) == forget_checks.share(rows - 1, rows) == 1
    assert forget_checks.share(0, rows) == forget_checks.share(1, rows) == 0
