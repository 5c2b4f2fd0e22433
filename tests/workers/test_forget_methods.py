"""A forget request that names its method gets that one, or is told that it cannot be had."""

import pytest

from app import ids
from tests.services.forgetting import as_it_is, forget, items_of, replacement_of, request_of
from tests.services.learning import job, learn, run_all
from tests.workers.test_exact_heads import an_exact_model, many, sent
from tests.workers.test_retention import published

LABELS, X = many()
MLP = {"name": "mlp", "params": {"hidden": [8]}}
TRAINED = {"epochs": 2, "batch_size": 8}


@pytest.fixture
def stack():
    return "embedded"


def by(name):
    return {"method": {"name": name, "params": {}}}


@pytest.mark.parametrize("method", ["analytic", "ncm", "fetril"])
def test_retrain_makes_anew_from_the_rows_what_auto_would_subtract_or_replay(service, tenant, caller, method):
    data = sent(service, tenant, LABELS, X, range(32))
    params = {"solver": "closed_form"} if method == "fetril" else None
    by_name, by_auto = (
        learn(service, caller, an_exact_model(service, caller), [data], method, params) for _ in range(2)
    )

    request, done = forget(service, tenant, data, 2, 5, models=[by_name.model_id.hex], **by("retrain"))
    forget(service, tenant, data, 2, 5, models=[by_auto.model_id.hex])
    run_all(service)

    assert done.state == "succeeded", done.error
    detail = items_of(service, request)[by_name.id].detail
    assert (detail["way"], detail["reason"]) == ("retrain", "the request asks for it")
    new, cheap = (
        service.vault.key(replacement_of(service, old).key_id).digests for old in (by_name, by_auto)
    )
    assert new["weights"] == cheap["weights"]
    assert new.get("statistics") == cheap.get("statistics")


def test_exact_trains_no_network_and_says_what_would_do(service, tenant, caller):
    data = sent(service, tenant, LABELS, X, range(32))
    model = an_exact_model(service, caller, network=MLP, expansion=None)
    old = published(service, caller, model, data, "supervised", params=TRAINED, seed=7)

    request, done = forget(service, tenant, data, 2, 5, **by("exact"))

    assert done.state == "failed"
    assert as_it_is(service, old).state == "ready"
    asked = request_of(service, request)
    assert (asked.state, asked.exceptions) == (
        "failed",
        [{"code": "needs-retrain", "model": ids.encode("mdl", model.id), "versions": 1}],
    )

    _, done = forget(service, tenant, data, 2, 5, **by("retrain"))

    assert job(service, done.id).state == "succeeded"
    assert as_it_is(service, old).state == "retired"
    assert replacement_of(service, old) is not None


def test_exact_is_what_auto_does_where_no_network_saw_the_rows(service, tenant, caller):
    data = sent(service, tenant, LABELS, X, range(32))
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")

    request, done = forget(service, tenant, data, 2, 5, **by("exact"))

    assert done.state == "succeeded", done.error
    assert items_of(service, request)[old.id].detail["way"] == "subtract"
