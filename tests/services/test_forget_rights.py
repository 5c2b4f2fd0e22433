"""Who may take a request back, and who may let versions go for it."""

from __future__ import annotations

import pytest

from app.errors import Forbidden
from app.schemas.forget import Retry
from app.services import jobs
from app.services.forget import decisions
from app.services.jobs import Cause
from tests.services.asking import a_dataset_of, ask, key, killed_after_the_object, row
from tests.services.learning import a_model, claim, learn, rows


@pytest.fixture
def data(service, tenant):
    return a_dataset_of(service, tenant.id, rows(ant=2, bee=2), [["ada"], ["ben"], ["cleo"], ["dan"]])


@pytest.fixture
def clerk(tenant):
    return key(tenant.id, "forget:create")


@pytest.fixture
def chief(tenant):
    return key(tenant.id, "forget:approve")


def test_a_clerk_takes_back_its_own_request_and_nobody_elses(service, tenant, data, clerk, chief):
    other = key(tenant.id, "forget:create")
    theirs, mine = ask(service, other, ["ada"]), ask(service, clerk, ["ben"])
    with pytest.raises(Forbidden, match="another"):
        decisions.cancel(service, clerk, theirs.id, None, None)
    assert row(service, theirs.id).state == "awaiting-approval"

    assert decisions.cancel(service, clerk, mine.id, None, None).state == "cancelled"
    assert decisions.cancel(service, chief, theirs.id, None, None).state == "cancelled"


def test_what_was_approved_is_taken_back_by_who_may_approve(service, caller, data, clerk, chief):
    a_model_that_knows(service, caller, data)
    mine = ask(service, clerk, ["ada"])
    decisions.approve_request(service, chief, mine.id, None)
    with pytest.raises(Forbidden, match="forget:approve"):
        decisions.cancel(service, clerk, mine.id, None, None)
    assert row(service, mine.id).state == "locating"
    assert service.ledger.get(mine.id, "lift") is None

    assert decisions.cancel(service, chief, mine.id, None, None).state == "cancelled"


def test_an_approval_that_is_about_to_show_counts(service, caller, data, clerk, chief):
    mine = ask(service, clerk, ["ada"])
    killed_after_the_object(service, lambda own: decisions.approve_request(own, chief, mine.id, None))
    with pytest.raises(Forbidden, match="forget:approve"):
        decisions.cancel(service, clerk, mine.id, None, None)
    assert service.ledger.get(mine.id, "lift") is None


def test_a_clerk_tries_again_and_does_not_let_versions_go(service, caller, data, clerk, chief):
    a_model_that_knows(service, caller, data)
    mine = ask(service, clerk, ["ada"])
    decisions.approve_request(service, chief, mine.id, None)
    jobs.fail(service, claim(service, "cpu", "gpu"), Cause.INTERNAL)
    with pytest.raises(Forbidden, match="withdraw"):
        decisions.retry(service, clerk, mine.id, Retry(withdraw=True), None)
    assert (row(service, mine.id).state, row(service, mine.id).withdraw) == ("failed", False)

    assert decisions.retry(service, clerk, mine.id, Retry(), None).state == "locating"
    jobs.fail(service, claim(service, "cpu", "gpu"), Cause.INTERNAL)
    assert decisions.retry(service, chief, mine.id, Retry(withdraw=True), None).state == "locating"
    assert row(service, mine.id).withdraw


def a_model_that_knows(service, caller, data):
    model = a_model(service, caller)
    learn(service, caller, model, [data])
    return model
