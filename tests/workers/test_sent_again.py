"""Rows of a deleted dataset: forgotten all the same, once they are sent again."""

import numpy as np
import pytest
from sqlalchemy import select

from app.errors import ArtifactCorrupt
from app.schemas.forget import Retry
from app.services.backups.follow import follow_indexes
from app.services.datasets import datasets, row_index
from app.services.erasure import forgotten
from app.services.forget import decisions
from app.tables import Dataset, ForgetItem, ModelClass, RowIndex
from tests.services.erasing import a_request
from tests.services.forgetting import (
    approved,
    as_it_is,
    forget,
    forget_class,
    items_of,
    replacement_of,
    request_of,
    rows_of,
)
from tests.services.learning import a_dataset, a_model, learn, rows, run_all, run_next
from tests.workers.test_exact_heads import an_exact_model, many, sent
from tests.workers.test_regression import a_regression, measured
from tests.workers.test_regression import sent as sent_with_targets

LABELS, X = many()
FIRST, SECOND = range(0, 20), range(20, 32)
MLP = {"name": "mlp", "params": {"hidden": [8]}}


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


def delete(service, caller, data):
    datasets.remove(service, caller, data.id)
    done = run_next(service)
    assert done.state == "succeeded", done.error


def again(service, tenant, index, x=X, labels=LABELS):
    """These rows, sent again to be forgotten."""
    return sent(service, tenant, labels, x, list(index), for_forget=True)


def two_steps(service, tenant, caller, method="analytic", gone=()):
    """Two versions of a model, learned from two datasets less some rows of the first; and the datasets."""
    model = an_exact_model(service, caller)
    first = sent(service, tenant, LABELS, X, [i for i in FIRST if i not in gone])
    second = sent(service, tenant, LABELS, X, list(SECOND))
    versions = [
        learn(service, caller, model, [data], method, on_conflict="extend") for data in (first, second)
    ]
    return versions, first, second


def weights(service, version):
    return service.vault.key(version.key_id).digests["weights"]


def indexes(service):
    with service.db.read() as session:
        return session.scalars(select(RowIndex)).all()


@pytest.mark.parametrize(
    ("stack", "method"),
    [("embedded", "analytic"), ("embedded", "ncm"), ("production", "analytic")],
    indirect=["stack"],
)
def test_rows_that_were_sent_again_are_subtracted_as_if_they_had_been_kept(service, tenant, caller, method):
    wanted, _, _ = two_steps(service, tenant, caller, method, gone={3, 7})
    old, first, _ = two_steps(service, tenant, caller, method)
    delete(service, caller, first)
    before = indexes(service)[0]
    rows_again = again(service, tenant, [7, 3])

    request, job = forget(service, tenant, first, 3, 7, rows_id=rows_again.id)

    assert job.state == "succeeded", job.error
    for version, expected in zip(old, wanted, strict=True):
        new = replacement_of(service, version)
        assert weights(service, new) == weights(service, expected)
        detail = items_of(service, request)[version.id].detail
        assert (detail["way"], detail["checks"]["rows_sent_again"]) == ("subtract", 2)
        assert detail["checks"]["identity"] is True
    run_all(service)
    done = request_of(service, request)
    assert (done.state, done.exceptions) == ("completed", [])
    assert done.evidence["sent_again"] == {"rows": 2, "unmatched": 0}
    after = row_index.read(service, first.id, old[0].feature_map_id)
    assert after is not None
    assert set(FIRST) - set(after.positions.tolist()) == {3, 7}
    assert {before.file_id, before.key_id}.isdisjoint({after.file_id for after in indexes(service)})
    for destroyed in (before.key_id, rows_again.id):
        with pytest.raises(ArtifactCorrupt):
            service.vault.key(destroyed)
    with service.db.read() as session:
        assert session.get_one(Dataset, rows_again.id).deleted_at is not None


def test_a_request_that_lacks_rows_waits_and_goes_on_once_they_are_sent(service, tenant, caller):
    wanted, _, _ = two_steps(service, tenant, caller, gone={3})
    old, first, _ = two_steps(service, tenant, caller)
    delete(service, caller, first)

    request, job = forget(service, tenant, first, 3, rows_id=again(service, tenant, [4]).id)

    assert job.state == "failed"
    assert [as_it_is(service, version).state for version in old] == ["ready", "ready"]
    waiting = request_of(service, request)
    assert waiting.state == "failed"
    [exception] = waiting.exceptions
    assert exception["code"] == "rows-not-retained"
    counts = ("rows", "versions", "can_be_sent", "sent", "unmatched")
    assert [exception[name] for name in counts] == [1, 2, True, 1, 1]

    more = again(service, tenant, [3, 5, 6])
    answer = decisions.retry(service, caller, request.id, Retry(rows=more.id), None)
    assert (answer.state, answer.exceptions) == ("locating", [])
    run_all(service)

    done = request_of(service, request)
    assert done.state == "completed-with-exceptions"
    assert done.exceptions == [{"code": "rows-not-matched", "rows": 2}]
    assert [weights(service, replacement_of(service, one)) for one in old] == [
        weights(service, one) for one in wanted
    ]


def test_a_retry_may_accept_that_versions_go(service, tenant, caller):
    old, first, _ = two_steps(service, tenant, caller)
    delete(service, caller, first)
    request, job = forget(service, tenant, first, 3)
    assert job.state == "failed"
    decisions.retry(service, caller, request.id, Retry(withdraw=True), None)
    assert run_next(service).state == "succeeded"
    assert [as_it_is(service, version).state for version in old] == ["retired", "retired"]
    assert [replacement_of(service, version) for version in old] == [None, None]
    run_all(service)
    assert request_of(service, request).state == "completed"
    assert indexes(service) == []  # the last versions that used the dataset are destroyed


def test_others_do_not_wait_for_a_request_that_lacks_rows(service, tenant, caller):
    old, first, second = two_steps(service, tenant, caller)
    delete(service, caller, first)
    lacks = approved(service, tenant, rows_of(first, 3))
    other, job = forget(service, tenant, second, 0)
    assert job.state == "succeeded", job.error
    assert (request_of(service, lacks).state, request_of(service, other).state) == ("failed", "purging")
    new = replacement_of(service, old[1])
    assert new.ledger_sequence < request_of(service, lacks).sequence  # so it is tainted by the one that waits
    assert as_it_is(service, old[0]).state == "ready"


def test_a_row_with_another_label_value_or_target_is_none_of_them(service, tenant, caller):
    x, y = measured(40)
    data = sent_with_targets(service, tenant, x, y)
    old = learn(service, caller, a_regression(service, caller), [data], "ridge_regression")
    wanted = learn(
        service,
        caller,
        a_regression(service, caller),
        [sent_with_targets(service, tenant, x[1:], y[1:])],
        "ridge_regression",
    )
    delete(service, caller, data)
    other = x[:1].copy()
    other[0, 0] += 0.5
    for rows_of_it, targets in ((x[:1], y[:1] + 1), (other, y[:1])):
        bad = sent_with_targets(service, tenant, rows_of_it, targets, for_forget=True)
        request, job = forget(service, tenant, data, 0, rows_id=bad.id)
        assert job.state == "failed"
        assert request_of(service, request).exceptions[0]["unmatched"] == 1
    good = sent_with_targets(service, tenant, x[:1], y[:1], for_forget=True)
    decisions.retry(service, caller, request.id, Retry(rows=good.id), None)
    with service.db.begin() as session:  # the first of the two waits for rows of its own
        for item in session.scalars(select(ForgetItem).where(ForgetItem.request_id != request.id)):
            item.state = "done"
    done = run_next(service)
    while done.kind != "forget":
        done = run_next(service)
    assert done.state == "succeeded", done.error
    assert weights(service, replacement_of(service, old)) == weights(service, wanted)


def test_rows_that_were_only_measured_need_not_be_sent(service, tenant, caller):
    model = an_exact_model(service, caller)
    split = [0] * 18 + [1, 1]
    data = sent(service, tenant, [*LABELS[:17], None, *LABELS[18:20]], X, range(20), split=split)
    old = learn(service, caller, model, [data], "analytic")
    delete(service, caller, data)
    _, job = forget(service, tenant, data, 17, 19)
    assert job.state == "succeeded", job.error
    assert weights(service, replacement_of(service, old)) == weights(service, old)


def test_rows_are_known_through_a_network_that_was_trained_here(service, tenant, caller):
    model = a_model(service, caller, network=MLP)
    kept = a_dataset(service, tenant.id, rows(ant=6, bee=6))
    learn(service, caller, model, [kept], "supervised", {"epochs": 1, "batch_size": 8})
    x = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)
    data = a_dataset(service, tenant.id, rows(cat=5), x=x)
    old = learn(service, caller, model, [data], "ncm", on_conflict="extend")
    delete(service, caller, data)
    row = a_dataset(service, tenant.id, ["cat"], x=x[2:3], for_forget=True)
    request, job = forget(service, tenant, data, 2, rows_id=row.id)
    assert job.state == "succeeded", job.error
    assert items_of(service, request)[old.id].detail["checks"]["rows_sent_again"] == 1


def test_a_class_of_a_deleted_dataset_is_found_in_its_index(service, tenant, caller):
    gone = {i for i in FIRST if LABELS[i] == "cat"}
    model = an_exact_model(service, caller)
    data = sent(service, tenant, LABELS, X, list(FIRST))
    old = learn(service, caller, model, [data], "analytic")
    wanted = learn(
        service,
        caller,
        an_exact_model(service, caller),
        [sent(service, tenant, LABELS, X, [i for i in FIRST if i not in gone])],
        "analytic",
    )
    delete(service, caller, data)
    with service.db.read() as session:
        cat = session.scalars(select(ModelClass).filter_by(model_id=model.id, name="cat")).one()
    request, job = forget_class(service, tenant, cat.id)
    assert (job.state, request_of(service, request).exceptions[0]["rows"]) == ("failed", len(gone))
    decisions.retry(service, caller, request.id, Retry(rows=again(service, tenant, gone).id), None)
    assert run_next(service).state == "succeeded"
    assert weights(service, replacement_of(service, old)) == weights(service, wanted)


def test_the_others_of_a_dataset_all_of_whose_rows_go_are_learned_again(service, tenant, caller):
    model = an_exact_model(service, caller)
    mine = sent(service, tenant, LABELS, X, [0, 1])
    data = sent(service, tenant, LABELS, X, list(SECOND))
    old = learn(service, caller, model, [mine, data], "analytic")
    wanted = learn(
        service,
        caller,
        an_exact_model(service, caller),
        [sent(service, tenant, LABELS, X, list(SECOND))],
        "analytic",
    )
    delete(service, caller, mine)
    request, job = forget(service, tenant, mine, 0, 1)
    assert job.state == "succeeded", job.error
    assert weights(service, replacement_of(service, old)) == weights(service, wanted)
    assert items_of(service, request)[old.id].detail["way"] == "retrain"


def test_a_row_that_is_erased_while_the_index_is_made_is_not_in_it(service, tenant, caller, monkeypatch):
    model = an_exact_model(service, caller)
    data = sent(service, tenant, LABELS, X, list(FIRST))
    version = learn(service, caller, model, [data], "ncm")
    gathered = row_index._gathered

    def and_meanwhile(service, *args):
        found = gathered(service, *args)
        monkeypatch.setattr(row_index, "_gathered", gathered)
        a_request(service, tenant.id, {data: [3]})
        forgotten.purge(service, tenant.id, lambda _: None)
        return found

    monkeypatch.setattr(row_index, "_gathered", and_meanwhile)
    delete(service, caller, data)
    found = row_index.read(service, data.id, version.feature_map_id)
    assert found is not None
    assert set(FIRST) - set(found.positions.tolist()) == {3}


def test_a_restored_index_is_followed_to_what_took_its_place(service, tenant, caller):
    model = an_exact_model(service, caller)
    data = sent(service, tenant, LABELS, X, list(FIRST))
    version = learn(service, caller, model, [data], "ncm")
    delete(service, caller, data)
    [before] = indexes(service)
    a_request(service, tenant.id, {data: [3]})
    forgotten.purge(service, tenant.id, lambda _: None)
    with service.db.begin() as session:  # as the older dump says
        row = session.get_one(RowIndex, before.id)
        after, row.file_id, row.key_id = row.file_id, before.file_id, before.key_id

    follow_indexes(service, ())

    assert indexes(service)[0].file_id == after
    found = row_index.read(service, data.id, version.feature_map_id)
    assert found is not None
    assert 3 not in found.positions
    service.vault.keys.delete(indexes(service)[0].key_id)
    follow_indexes(service, ())
    assert indexes(service) == []
