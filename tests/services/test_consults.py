"""Everything that asks the ledger: training, aliases, exports, predictions, for the models it concerns."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db import clock
from app.errors import (
    ClassNameConflict,
    NotReady,
    Purged,
    SubjectRestricted,
    VersionNotReady,
    VersionTainted,
)
from app.schemas.aliases import AliasPut
from app.services.erasure import ledger
from app.services.forget.class_rows import rows_of_class
from app.services.models import aliases, artifacts, models, taint, versions
from app.services.policies import offers
from app.services.predictions import serving
from app.tables import Model, ModelClass, Offer, Version, VersionDataset
from tests.services.asked import approve, replaced, request
from tests.services.learning import (
    a_dataset,
    a_model,
    claim,
    erase,
    learn,
    restrict,
    rows,
    run_next,
    submit,
)
from workers import plan as plans


@pytest.fixture
def data(service, tenant):
    return a_dataset(service, tenant.id, rows(ant=4, bee=4, cat=4))


@pytest.fixture
def model(service, caller):
    return a_model(service, caller)


def class_of(service, model, name):
    with service.db.read() as session:
        return session.scalars(select(ModelClass.id).filter_by(model_id=model.id, name=name)).one()


def a_class(service, tenant, model, name, **changes):
    """A request that names a class of a model."""
    target = ledger.class_target(class_of(service, model, name))
    return request(service, tenant.id, scope="class", targets=[target], **changes)


def put(service, caller, model, number):
    body = AliasPut(version=number, reason="test")
    return aliases.put(service, caller, model.id, "production", body, lambda _: None)


def resolve(service, tenant, model, alias="production", number=None):
    with service.db.read() as session:
        return serving.resolve(session, tenant.id, model.id, None if number else alias, number)


def policy(service, model, on_taint):
    with service.db.begin() as session:
        session.get_one(Model, model.id).on_taint = on_taint


def test_an_entry_that_names_models_concerns_no_other(service, tenant, caller, data, model):
    other = a_model(service, caller)
    mine, theirs = learn(service, caller, model, [data]), learn(service, caller, other, [data])
    row = request(service, tenant.id, rows={data.id: [1]}, models=[model])
    with service.db.read() as session:
        assert ledger.restricting(session, mine.id)
        assert ledger.restricting(session, theirs.id) is None
        assert ledger.unusable(session, [data.id], other.id) == {data.id: set()}

    approve(service, row, rows={data.id: [1]})

    with service.db.read() as session:
        assert ledger.tainted(session, [mine.id, theirs.id]) == {mine.id: 1}
        assert ledger.unusable(session, [data.id], model.id) == {data.id: {1}}
        assert ledger.unusable(session, [data.id], other.id) == {data.id: set()}
        assert ledger.unusable(session, [data.id]) == {data.id: {1}}


def test_rows_of_a_class_are_those_with_its_label(service, tenant, data):
    other = a_dataset(service, tenant.id, rows(dog=2))
    expected = {at for at, label in enumerate(rows(ant=4, bee=4, cat=4)) if label == "cat"}
    assert rows_of_class(service, [data.id, other.id], "cat") == {data.id: expected}


def test_an_update_leaves_out_the_rows_of_a_restricted_class_and_says_so(
    service, tenant, caller, data, model
):
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=2, cat=2))])
    a_class(service, tenant, model, "cat")
    submit(service, caller, model, [data], on_conflict="extend")

    done = run_next(service)

    assert done.state == "succeeded", done.error
    assert done.result["left_out"] == 4
    with service.db.read() as session:
        [edge] = session.scalars(
            select(VersionDataset)
            .join(Version)
            .where(Version.number == 2, VersionDataset.dataset_id == data.id, VersionDataset.role == "train")
        )
        assert set(edge.left_out) == rows_of_class(service, [data.id], "cat")[data.id]
        assert edge.rows == 8


def test_an_outcome_with_rows_of_a_class_that_was_named_meanwhile_is_thrown_away(
    service, tenant, caller, data, model, monkeypatch
):
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=2, cat=2))])
    submit(service, caller, model, [data], on_conflict="extend")
    real = plans.make

    def make(*asked):
        monkeypatch.setattr(plans, "make", real)
        plan = real(*asked)
        a_class(service, tenant, model, "cat")
        return plan

    monkeypatch.setattr(plans, "make", make)

    assert run_next(service).state == "queued"
    assert run_next(service).result["left_out"] == 4


def test_a_label_of_an_erased_class_is_refused_in_data_that_came_after(service, tenant, caller, data, model):
    learn(service, caller, model, [data])
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(dog=3))])
    approve(service, a_class(service, tenant, model, "dog"))
    fresh = a_dataset(service, tenant.id, rows(dog=3, ant=2))

    with pytest.raises(ClassNameConflict, match="dog"):
        submit(service, caller, model, [fresh], on_conflict="extend")


def test_a_class_entry_taints_what_knows_the_class_and_restricts_before(service, tenant, caller, data, model):
    first = learn(service, caller, model, [data])
    second = learn(service, caller, model, [a_dataset(service, tenant.id, rows(dog=3))])
    row = a_class(service, tenant, model, "dog")
    with service.db.read() as session:
        assert ledger.restricting(session, second.id)
        assert ledger.restricting(session, first.id) is None
    with pytest.raises(SubjectRestricted):
        put(service, caller, model, 2)

    sequence = approve(service, row)

    with service.db.read() as session:
        assert ledger.taints(session, [first.id, second.id]) == {second.id: {sequence}}
    assert resolve(service, tenant, model, number=2).hidden == {class_of(service, model, "dog")}
    with pytest.raises(VersionTainted, match="choose 1"):
        put(service, caller, model, 2)


def test_names_the_replacement_wherever_a_replaced_version_is_named(service, tenant, caller, data, model):
    old = learn(service, caller, model, [data])
    put(service, caller, model, 1)
    erase(service, tenant.id, data, 0)
    new = learn(service, caller, a_model(service, caller), [data])
    with service.db.begin() as session:  # as a forget job publishes it
        version = session.get_one(Version, new.id)
        version.model_id, version.number, version.replaces_id = model.id, 2, None
    replaced(service, old, new)
    put(service, caller, model, 2)
    path = versions.path(model.id, 2)

    refusals = [
        (VersionTainted, lambda: put(service, caller, model, 1)),
        (
            VersionTainted,
            lambda: aliases.rollback(service, caller, model.id, "production", "back", lambda _: None),
        ),
        (VersionTainted, lambda: submit(service, caller, model, [data], base=1)),
        (VersionTainted, lambda: artifacts.export(service, caller, model.id, 1, None)),
        (VersionNotReady, lambda: resolve(service, tenant, model, number=1)),
    ]
    for kind, act in refusals:
        with pytest.raises(kind) as refused:
            act()
        assert refused.value.related == (path,)
    assert versions.read_one(service, tenant.id, model.id, 1).replaced_by == 2
    assert versions.read_one(service, tenant.id, model.id, 2).replaces == 1
    with service.db.begin() as session:
        session.get_one(Version, old.id).state = "purged"
    with pytest.raises(VersionTainted, match="replaced by version 2"):
        put(service, caller, model, 1)
    with pytest.raises(Purged) as gone:
        resolve(service, tenant, model, number=1)
    assert gone.value.related == (path,)


def test_an_export_of_restricted_rows_is_refused(service, caller, data, model):
    learn(service, caller, model, [data])
    restrict(service, data, 2)
    with pytest.raises(SubjectRestricted):
        artifacts.export(service, caller, model.id, 1, None)


def test_a_tainted_version_answers_as_its_model_says(service, tenant, caller, data, model):
    learn(service, caller, model, [data])
    later = a_dataset(service, tenant.id, rows(dog=3))
    learn(service, caller, model, [later])
    put(service, caller, model, 2)
    approve(service, request(service, tenant.id, targets=[]), rows={later.id: [0]})

    def alias():
        return aliases.read(service, tenant.id, model.id, "production").serves

    served = resolve(service, tenant, model)
    assert (served.number, served.instead_of, alias()) == (2, None, 2)
    assert served.until < float("inf")
    policy(service, model, "fall-back")
    fallen = resolve(service, tenant, model)
    assert (fallen.number, fallen.instead_of, alias()) == (1, 2, 1)
    with pytest.raises(VersionTainted) as by_number:
        resolve(service, tenant, model, number=2)
    assert by_number.value.related == (versions.path(model.id, 1),)
    policy(service, model, "suspend")
    with pytest.raises(VersionTainted) as suspended:
        resolve(service, tenant, model)
    assert (suspended.value.headers, alias()) == (taint.RETRY, None)


def test_a_tainted_version_ceases_to_answer_when_its_request_is_due_unless_on_hold(
    service, tenant, caller, data, model
):
    learn(service, caller, model, [data])
    put(service, caller, model, 1)
    row = request(service, tenant.id, due=-1.0)
    approve(service, row, rows={data.id: [0]})
    with pytest.raises(VersionTainted):
        resolve(service, tenant, model)

    with service.db.begin() as session:
        now = clock(session) + timedelta(days=1)
        session.merge(row).hold = {"reason": "a lawsuit", "until": now.isoformat(), "actor": "test"}

    assert resolve(service, tenant, model).number == 1


def test_latest_is_the_newest_version_while_every_one_is_tainted(service, tenant, caller, data, model):
    learn(service, caller, model, [data])
    erase(service, tenant.id, data, 0)
    assert resolve(service, tenant, model, alias=None).number == 1
    policy(service, model, "suspend")
    with pytest.raises(VersionTainted):
        resolve(service, tenant, model, alias=None)


def test_an_update_does_not_begin_again_from_nothing_while_every_version_is_tainted(
    service, tenant, caller, data, model
):
    learn(service, caller, model, [data])
    fresh = a_dataset(service, tenant.id, rows(dog=3, ant=1))
    submit(service, caller, model, [fresh], on_conflict="extend")
    erase(service, tenant.id, data, 0)
    claimed = claim(service, "cpu")

    with pytest.raises(NotReady):
        plans.make(service, claimed)
    with pytest.raises(VersionTainted):
        submit(service, caller, a_model_like(service, caller, tenant, data), [fresh])


def a_model_like(service, caller, tenant, data):
    """A model whose only version is tainted, and that nothing waits for."""
    other = a_model(service, caller)
    with service.db.begin() as session:
        version = session.scalars(select(Version)).one()
        version.model_id = other.id
    return other


def test_a_policy_counts_no_rows_that_a_request_has_named(service, tenant, caller, data, model):
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=2, cat=2))])
    with service.db.begin() as session:
        row = session.get_one(Model, model.id)
        session.add(
            Offer(
                model_id=model.id,
                dataset_id=data.id,
                tenant_id=tenant.id,
                offered_at=clock(session),
                state=offers.WAITING,
                tries=0,
            )
        )
    restrict(service, data, 0)
    a_class(service, tenant, model, "cat")
    with service.db.read() as session:
        row = models.get(session, tenant.id, model.id)
        assert [one.rows for one in offers.waiting(session, row)] == [12 - 1 - 4]
