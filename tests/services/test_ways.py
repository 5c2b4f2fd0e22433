"""The way in which a version is made clean, and what it reads: known before anything is done."""

import numpy as np
import pytest
from sqlalchemy import delete

from app.services.forget import classes_left, ways
from app.services.forget.classes_left import Labels
from app.services.models import models
from app.tables import Dataset, ModelClass, Shard
from tests.services.learning import a_dataset, a_model, learn, rows

MLP = {"name": "mlp", "params": {"hidden": [8]}}


@pytest.fixture
def stack():
    return "embedded"


def way(service, tenant, version, dataset, *positions, **more):
    with service.db.read() as session:
        model = models.get(session, tenant.id, version.model_id)
        return ways.of(session, model, version, {dataset.id: positions}, **more)


def class_of(service, version, name):
    with service.db.read() as session:
        return session.query(ModelClass).filter_by(model_id=version.model_id, name=name).one().id


@pytest.mark.parametrize(
    ("method", "kind", "reads"),
    [("analytic", "subtract", 2), ("ncm", "subtract", 2), ("fetril", "replay", 8)],
)
def test_what_a_head_is_a_function_of_says_what_is_read(service, tenant, caller, method, kind, reads):
    model = a_model(service, caller)
    old = a_dataset(service, tenant.id, rows(ant=20, bee=20))
    learn(service, caller, model, [old], "analytic")
    version = learn(service, caller, model, [a_dataset(service, tenant.id, rows(cat=3, dog=3))], method)
    found = way(service, tenant, version, old, 1, 2)
    assert (found.kind, found.guarantee, found.reads_rows, found.steps) == (kind, "exact", reads, 1)


def test_a_network_that_saw_the_rows_is_trained_again_and_one_that_did_not_is_not(service, tenant, caller):
    model = a_model(service, caller, network=MLP)
    split = np.arange(20) >= 16
    first = a_dataset(service, tenant.id, rows(ant=10, bee=10), split=split)
    trained = learn(service, caller, model, [first], "supervised", {"epochs": 1})
    second = a_dataset(service, tenant.id, rows(cat=4))
    built = learn(service, caller, model, [second], "ncm")
    assert (way(service, tenant, trained, first, 0).kind, way(service, tenant, trained, first, 0).steps) == (
        "retrain",
        1,
    )
    found = way(service, tenant, built, first, 0)
    assert (found.kind, found.steps, found.reads_rows) == ("retrain", 2, 19)
    assert way(service, tenant, built, second, 0).kind == "subtract"
    assert way(service, tenant, built, first, 17).kind == "retrain"  # without a look at the row: the worse
    known = way(service, tenant, built, first, 17, measured={first.id: {17}})
    assert (known.kind, known.reads_rows, known.steps) == ("subtract", 0, 0)


def test_nothing_is_left_without_rows_or_with_one_class_or_with_rows_nowhere(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=3, bee=3))
    version = learn(service, caller, a_model(service, caller), [data], "ncm")
    assert way(service, tenant, version, data, *range(6)).kind == "drop"
    one = class_of(service, version, "ant")
    assert way(service, tenant, version, data, classes=[one]).kind == "drop"
    with service.db.begin() as session:
        row = session.get_one(Dataset, data.id)
        row.deleted_at = row.created_at
    found = way(service, tenant, version, data, 1)
    assert (found.kind, found.can_be_sent) == ("drop", True)  # its purge, which writes the index, is to come
    with service.db.begin() as session:
        session.execute(delete(Shard).filter_by(dataset_id=data.id))
    found = way(service, tenant, version, data, 1)
    assert (found.kind, found.can_be_sent) == ("drop", False)


def test_a_class_counts_the_rows_that_the_version_knows_of_it(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=3, bee=4, cat=5))
    version = learn(service, caller, a_model(service, caller), [data], "analytic")
    found = way(service, tenant, version, data, classes=[class_of(service, version, "cat")])
    assert (found.kind, found.reads_rows) == ("subtract", 5)


def with_labels(service, tenant, version, dataset, *positions):
    labels = classes_left.read(service, {dataset.id: set(positions)})
    return way(service, tenant, version, dataset, *positions, measured=labels.silent, labels=labels)


def test_rows_that_are_the_last_of_a_class_take_it_along_and_the_version_where_one_is_left(
    service, tenant, caller
):
    split = np.arange(10) == 9  # the last row is a cat that nothing learned
    data = a_dataset(service, tenant.id, ["ant"] * 4 + ["bee"] * 3 + ["cat"] * 3, split=split)
    version = learn(service, caller, a_model(service, caller), [data], "analytic")
    found = with_labels(service, tenant, version, data, 0, 7, 8)
    assert (found.kind, found.classes_gone) == ("subtract", ("cat",))
    assert "known only" not in found.reason
    assert with_labels(service, tenant, version, data, 0, 7, 9).classes_gone == ()
    gone = with_labels(service, tenant, version, data, *range(4, 9))
    assert (gone.kind, gone.reason) == ("drop", "fewer than two classes would be left")


@pytest.mark.parametrize(
    ("positions", "said"),
    [([0], ""), ([0, 1, 2], ways.UNREAD), ([0, 1, 2, 3, 4, 5], ways.UNSURE)],
)
def test_what_rows_that_were_not_read_may_take_along_is_said(service, tenant, caller, positions, said):
    data = a_dataset(service, tenant.id, rows(ant=4, bee=3, cat=3))
    version = learn(service, caller, a_model(service, caller), [data], "ncm")
    found = way(service, tenant, version, data, *positions, labels=Labels())
    assert found.kind == "subtract"
    assert found.reason == "its head is a function of sums over the rows" + said


def test_a_step_of_which_no_row_is_left_is_not_learned_again(service, tenant, caller):
    model = a_model(service, caller)
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=4, bee=4))], "analytic")
    own = a_dataset(service, tenant.id, rows(cat=2))
    version = learn(service, caller, model, [own], "fetril")
    assert with_labels(service, tenant, version, own, 0).kind == "replay"
    gone = with_labels(service, tenant, version, own, 0, 1)
    assert (gone.kind, gone.reason) == ("drop", "no row of the version's own update would be left")
