"""A forget job: each usable version that knew the rows is replaced by the one that training without gives."""

import pytest

from app.services.models import snapshots
from tests.services.forgetting import as_it_is, forget, items_of, replacement_of, request_of
from tests.services.learning import learn
from tests.workers.test_exact_heads import an_exact_model, many, sent


@pytest.fixture
def stack():
    return "embedded"


def survivors(service, tenant, caller, labels, x, parts, gone, method, params=None, **model):
    """The versions that learning the same parts without the rows gives, on a model of their own."""
    other = an_exact_model(service, caller, **model)
    found = []
    for part in parts:
        index = [i for i in part if i not in gone]
        data = sent(service, tenant, labels, x, index)
        found.append(learn(service, caller, other, [data], method, params, on_conflict="extend"))
    return found


@pytest.mark.parametrize("method", ["analytic", "lda", "naive_bayes", "ncm", "teen"])
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
