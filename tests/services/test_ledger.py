"""What may be used, and what was used and is erased since."""

import pytest

from app.services.erasure import ledger
from tests.services.learning import a_dataset, a_model, erase, learn, lift, restrict, rows


@pytest.fixture
def data(service, tenant):
    return a_dataset(service, tenant.id, rows(ant=5, bee=5), split=[0] * 8 + [1] * 2)


def test_names_restricted_and_erased_rows(service, tenant, data):
    restrict(service, data, 1)
    erase(service, tenant.id, data, 4)
    with service.db.read() as session:
        assert ledger.unusable(session, [data.id]) == {data.id: {1, 4}}


def test_forgets_an_entry_that_was_lifted(service, tenant, caller, data):
    version = learn(service, caller, a_model(service, caller), [data])
    request = erase(service, tenant.id, data, 4)
    lift(service, tenant.id, request)
    with service.db.read() as session:
        assert ledger.unusable(session, [data.id]) == {data.id: set()}
        assert ledger.tainted(session, [version.id]) == {}


def test_taints_what_used_a_row_before_it_was_erased(service, tenant, caller, data):
    version = learn(service, caller, a_model(service, caller), [data])
    erase(service, tenant.id, data, 2)
    with service.db.read() as session:
        assert ledger.tainted(session, [version.id]) == {version.id: 1}


def test_taints_by_rows_that_only_measured(service, tenant, caller, data):
    version = learn(service, caller, a_model(service, caller), [data])
    erase(service, tenant.id, data, 9)
    with service.db.read() as session:
        assert version.id in ledger.tainted(session, [version.id])


def test_does_not_taint_what_was_made_after_the_erasure(service, tenant, caller, data):
    erase(service, tenant.id, data, 2)
    version = learn(service, caller, a_model(service, caller), [data])
    with service.db.read() as session:
        assert version.ledger_sequence == ledger.sequence(session) > 0
        assert ledger.tainted(session, [version.id]) == {}


def test_does_not_taint_what_left_the_row_out(service, tenant, caller, data):
    restrict(service, data, 2)
    version = learn(service, caller, a_model(service, caller), [data])
    erase(service, tenant.id, data, 2)
    with service.db.read() as session:
        assert ledger.tainted(session, [version.id]) == {}
        assert ledger.restricting(session, version.id) is None


def test_taints_what_came_of_a_tainted_version(service, tenant, caller, data):
    model = a_model(service, caller)
    learn(service, caller, model, [data])
    second = learn(service, caller, model, [a_dataset(service, tenant.id, rows(cat=3))])
    erase(service, tenant.id, data, 0)
    with service.db.read() as session:
        assert second.id in ledger.tainted(session, [second.id])


def test_says_which_versions_used_restricted_rows(service, tenant, caller, data):
    version = learn(service, caller, a_model(service, caller), [data])
    with service.db.read() as session:
        assert ledger.restricting(session, version.id) is None
    restrict(service, data, 3)
    with service.db.read() as session:
        assert ledger.restricting(session, version.id)


def test_tells_what_became_unusable_since(service, tenant, data):
    restrict(service, data, 1)
    with service.db.read() as session:
        before = ledger.unusable(session, [data.id])
        assert ledger.newly_unusable(session, before) == {}
    erase(service, tenant.id, data, 1, 6)
    with service.db.read() as session:
        assert ledger.newly_unusable(session, before) == {data.id: {6}}
