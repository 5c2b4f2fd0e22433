"""A forget job: each usable version that knew the rows is replaced by the one that training without gives."""

import pytest

from app.services.models import snapshots
from tests.services.forgetting import as_it_is, forget, items_of, replacement_of, request_of
from tests.services.learning import learn
from tests.workers.test_exact_heads import an_exact_model, many, sent
from tests.workers.test_regression import a_regression, measured
from tests.workers.test_regression import sent as sent_with_targets


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


def survivors(service, tenant, caller, labels, x, parts, gone, method, params=None, **model):
    """The versions that learning the same parts without the rows gives, on a model of their own."""
    other = an_exact_model(service, caller, **model)
    found = []
    for part in parts:
        index = [i for i in part if i not in gone]
        data = sent(service, tenant, labels, x, index)
        found.append(learn(service, caller, other, [data], method, params, on_conflict="extend"))
    return found


@pytest.mark.parametrize(
    ("stack", "method"),
    [("embedded", name) for name in ("analytic", "lda", "naive_bayes", "ncm", "teen")]
    + [("production", "analytic")],
    indirect=["stack"],
)
def test_every_retained_version_is_replaced_by_the_one_that_training_without_gives(
    service, tenant, caller, method
):
    labels, x = many()
    parts = [range(0, 16), range(16, 24), range(24, 32)]
    model = an_exact_model(service, caller)
    data = [sent(service, tenant, labels, x, list(part)) for part in parts]
    old = [learn(service, caller, model, [one], method, on_conflict="extend") for one in data]

    without = survivors(service, tenant, caller, labels, x, parts, {18, 21}, method)

    request, job = forget(service, tenant, data[1], 2, 5)

    assert job.state == "succeeded", job.error
    assert as_it_is(service, old[0]).state == "ready"
    for before, expected in zip(old[1:], without[1:], strict=True):
        new = replacement_of(service, before)
        assert as_it_is(service, before).state == "retired"
        assert service.vault.key(new.key_id).digests["weights"] == digest(service, expected, "weights")
        assert digest(service, new, "statistics") == digest(service, expected, "statistics")
        found = snapshots.load(service, new.id).snapshot.centroids
        wanted = snapshots.load(service, expected.id).snapshot.centroids
        assert {name: (c.sum.tolist(), c.count) for name, c in found.items()} == {
            name: (c.sum.tolist(), c.count) for name, c in wanted.items()
        }
    assert request_of(service, request).state == "purging"
    assert set(items_of(service, request)) == {version.id for version in old[1:]}


def digest(service, version, name):
    return service.vault.key(version.key_id).digests.get(name)


def test_a_regression_forgets_the_rows_that_have_targets(service, tenant, caller):
    x, y = measured(40)
    kept = [i for i in range(40) if i not in (3, 17)]
    wanted = learn(
        service,
        caller,
        a_regression(service, caller),
        [sent_with_targets(service, tenant, x[kept], y[kept])],
        "ridge_regression",
    )
    data = sent_with_targets(service, tenant, x, y)
    old = learn(service, caller, a_regression(service, caller), [data], "ridge_regression")

    request, job = forget(service, tenant, data, 3, 17)

    assert job.state == "succeeded", job.error
    new = replacement_of(service, old)
    assert [digest(service, new, name) for name in ("weights", "statistics")] == [
        digest(service, wanted, name) for name in ("weights", "statistics")
    ]
    checks = items_of(service, request)[old.id].detail["checks"]
    assert (checks["rows_before"], checks["rows_after"], checks["rows_forgotten"]) == (40, 38, 2)
    assert checks["identity"] is True
    assert checks["forgotten"]["rows"] == 2
    assert checks["others"]["mean_absolute_error"] is None, "of so few rows each could be told from it"


def test_a_row_without_a_label_was_never_learned_and_changes_nothing(service, tenant, caller):
    labels, x = many()
    data = sent(service, tenant, [*labels[:31], None], x, range(32))
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    forget(service, tenant, data, 31)
    new = replacement_of(service, old)
    assert digest(service, new, "weights") == digest(service, old, "weights")
    assert digest(service, new, "statistics") == digest(service, old, "statistics")


def test_where_no_row_stays_beside_those_that_go_it_says_so(service, tenant, caller):
    labels, x = many()
    all_of_one, other = (sent(service, tenant, labels, x, part) for part in (range(8), range(8, 32)))
    old = learn(service, caller, an_exact_model(service, caller), [all_of_one, other], "analytic")
    request, _ = forget(service, tenant, all_of_one, *range(8))
    others = items_of(service, request)[old.id].detail["checks"]["others"]
    assert others == {
        "rows": 0,
        "accuracy": None,
        "reason": "not measured: no other rows in the opened shards",
    }


def test_what_was_verified_is_told_and_no_digest_of_it(service, tenant, caller):
    labels, x = many()
    data = sent(service, tenant, labels, x, range(32))
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    request, job = forget(service, tenant, data, 0, 4)
    detail = items_of(service, request)[old.id].detail
    new = replacement_of(service, old)
    assert (detail["number"], detail["replacement"]) == (old.number, new.number)
    assert detail["replacement_id"] == new.id.hex
    assert (detail["way"], detail["guarantee"]) == ("subtract", "exact")
    assert 0 < detail["checks"]["error_bound"] < 1e-12
    assert detail["checks"]["others"]["rows"] == 6  # of the same shard of eight
    said = f"{detail} {job.result} {request_of(service, request).evidence}"
    assert not any(value in said for value in service.vault.key(new.key_id).digests.values())
